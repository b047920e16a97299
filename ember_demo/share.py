"""Take an erasure elsewhere: the edit as files, the whole edited model, and either of them to the Hub."""

import json
from contextlib import nullcontext
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

from ember_demo.errors import EditError, ModelError

EDIT, DETAILS, CARD = "edit.safetensors", "edit.json", "README.md"
MADE_BY = "Made by the EMBER demo (EMBedding ERasure, arXiv 2606.03695)."


def save_edit(model, concept_name, edit, folder):
    """Write the edit to the folder: edit.safetensors, edit.json (what made it) and a card, README.md."""
    folder = made_folder(folder)
    edit.save(folder / EDIT)
    about = {"model": model.id, "concept": concept_name, "fingerprint": edit.fingerprint} | edit.details
    (folder / DETAILS).write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
    use = (
        "```python\nimport ember_demo as ed\n\n"
        f'model = ed.load_model("{model.id}", "{model.precision}")\ned.WeightEdit.load("{EDIT}").apply(model)\n```\n\n'
        "It fits only the base weights, and the precision, that it was made for; anything else is refused."
    )
    (folder / CARD).write_text(_card(model, edit, f"An edit that erases {concept_name} from {model.id}", use), encoding="utf-8")


def save_model(model, concept_name, edit, folder):
    """Write the model with the edit in it, so that plain transformers loads it without this package.

    Where the output head shared its weights with the embeddings, it is saved apart and the configuration says so.
    Raises ModelError for a 4-bit model, whose weights are not those of its base.
    """
    check_whole(model)
    folder = made_folder(folder)
    with edit.applied(model) if edit else nullcontext():
        model.network.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
    use = (
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained(".")\ntokenizer = AutoTokenizer.from_pretrained(".")\n```'
    )
    (folder / CARD).write_text(
        _card(model, edit, f"{model.id} without {concept_name}", use, "library_name: transformers"), encoding="utf-8"
    )


def check_whole(model):
    """Raise ModelError where the model cannot be saved whole."""
    if model.precision == "4bit":
        raise ModelError(
            "A model in 4 bit cannot be saved whole: its rounded weights are no longer those of its base. "
            "Load it with --precision bf16 to save it whole, or save the edit."
        )


def push(folder, repo, token=None, private=True):
    """Upload a saved folder to the Hub as the model `repo`, private unless asked otherwise; its address.

    token: the person's own; None takes the one they logged in with. It is neither stored nor shown.
    """
    check_login(token)
    hub = HfApi(token=token)
    try:
        repo = hub.create_repo(repo, private=private, exist_ok=True).repo_id
        if private and not hub.model_info(repo).private:
            raise EditError(f"{repo} exists on the Hub and is open to everybody; choose a new name, or upload with --public.")
        hub.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload from the EMBER demo")
    except HFValidationError:
        raise EditError(f"{repo!r} is not a name for the Hub; it looks like yourname/model-without-golf.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise EditError(
                f"The Hub does not let this token write to {repo}; make a token that may write, or choose a name of your own."
            ) from None
        raise EditError(f"The Hub did not take {repo} (status {status}); try again later. The files are still in {folder}.") from None
    except (HTTPError, OSError) as error:
        raise EditError(
            f"The Hub cannot be reached ({type(error).__name__}); connect to the internet. The files are still in {folder}."
        ) from None
    return f"{hub.endpoint}/{repo}"


def check_login(token=None):
    """Raise EditError where there is no token to upload with."""
    if not (token or get_token()):
        raise EditError("Nobody is logged in to the Hub here; run `hf auth login`, or give a token that may write.")


def made_folder(folder):
    """The folder, new or made by this module before: nobody's other files are written over, or uploaded with it."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        card = folder / CARD
        ours = card.is_file() and MADE_BY in card.read_text(encoding="utf-8", errors="replace")
        if any(folder.iterdir()) and not ours:
            raise EditError(f"The folder {folder} holds other files; choose a new one.")
    except OSError as error:
        raise EditError(f"The folder {folder} cannot be made ({error.strerror}); choose another.") from None
    return folder


def _card(model, edit, title, use, *front):
    """front: lines of metadata beside the usual ones."""
    front = ["---", *front, "tags:", "- unlearning", "- concept-erasure"]
    if "/" in model.id and not Path(model.id).exists():
        front.insert(1, f"base_model: {model.id}")
    settings = json.dumps(edit.details.get("settings", {}) if edit else {}, indent=1)
    tokens = edit.details.get("edited_tokens", []) if edit else []
    lines = [
        *front,
        "---",
        f"# {title}",
        "",
        MADE_BY,
        "",
        use,
        "",
        "## Limits",
        "",
        "Erasure is not a guarantee. What was not edited can come back by retraining, by other spellings or by descriptions; measure it with "
        "`python -m ember_demo study` before relying on it. Whoever holds the base model can undo the edit.",
        "",
        "## Settings",
        "",
        f"```json\n{settings}\n```",
        "",
    ]
    if tokens:
        lines += [f"{len(tokens)} tokens edited: {', '.join(t['token'] for t in tokens)}.", ""]
    return "\n".join(lines)
