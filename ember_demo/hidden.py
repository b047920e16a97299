"""Hidden states of a layer, computed no further than that layer."""


class _Reached(Exception):
    pass


def hidden_states(model, texts, layer):
    """Output of decoder layer `layer` for a batch of texts: states (n, length, d) and the mask (n, length) of real tokens.

    The first token is left out of the mask: it is the same for every text, so it says nothing of any.
    A text that begins with the tokenizer's start token is taken as it is, any other gets one.
    """
    start = model.tokenizer.bos_token or ""
    inputs = model.encode([t if t.startswith(start) else start + t for t in texts], padding_side="right")
    caught = []

    def catch(module, args, output):
        caught.append(output[0] if isinstance(output, tuple) else output)
        raise _Reached

    hook = model.layers[layer].register_forward_hook(catch)
    try:
        model.network(**inputs, use_cache=False)
    except _Reached:
        pass
    finally:
        hook.remove()
    mask = inputs["attention_mask"].bool()
    mask[:, 0] = False
    return caught[0], mask.to(caught[0].device)  # where that layer is, which need not be where the text went in
