"""What a layer computes for a batch of texts, computed no further than that layer."""

from functools import partial


class _Reached(Exception):
    pass


def hidden_states(model, texts, layer):
    """Output of decoder layer `layer`: states (n, length, d) and the mask (n, length) of real tokens.

    The first token is left out of the mask. Mostly it is the start token, the same for every text; where a tokenizer has none, the state of
    whatever stands first is outsized all the same, as attention rests there (attention sinks, arXiv 2309.17453).
    """
    return _run_until(model, texts, model.layers[layer].register_forward_hook)


def mlp_activations(model, texts, layer):
    """What the neurons of the MLP of decoder layer `layer` hold, before its output weight: (n, length, MLP width), and the mask as above."""
    output = model.network.get_submodule(model.mlp_outputs[layer].removesuffix(".weight"))
    return _run_until(model, texts, output.register_forward_pre_hook)


def _run_until(model, texts, register):
    inputs = model.encode_texts(texts)
    caught = []
    hook = register(partial(_catch, caught))
    try:
        model.network(**inputs, use_cache=False)
    except _Reached:
        pass
    finally:
        hook.remove()
    mask = inputs["attention_mask"].bool()
    mask[:, 0] = False
    return caught[0], mask.to(caught[0].device)  # where that layer is, which need not be where the text went in


def _catch(caught, module, args, output=None):
    """As a forward hook keeps what the module gives, as a forward pre-hook, which has no output, what it is given."""
    value = args if output is None else output
    caught.append(value[0] if isinstance(value, tuple) else value)
    raise _Reached
