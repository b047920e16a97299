"""The layout: four steps on one page, from concept to attack."""

import gradio as gr

from ember_demo.attacks import ATTACKS
from ember_demo.erasers.ember import DELTAS
from ember_demo.language_model import MODELS, POCKET
from ember_demo.memory import PRECISIONS
from ember_demo.report import PIECES_CSS
from ember_demo.sources import concept_names
from ember_demo.ui import handlers
from ember_demo.ui.session import Session
from ember_demo.wording import COLORS, LABELS

TITLE = "EMBER: erase a concept, then try to get it back"
INTRO = """
# EMBER: erase a concept, then try to get it back
A language model can be made to *forget* a subject. Many methods hide the knowledge rather than remove it, and a little retraining
brings it back. **EMBER** also edits the model's word table, where a word's meaning enters the model. See for yourself: erase,
chat with the model before and after, then attack it.
"""
CHAT_HEADINGS = {
    "original": "as it was",
    "rmu": "layers retrained, word table untouched",
    "ember": "word table edited, layers untouched",
    "ember+rmu": "both",
}
# The room above the first message keeps the chat's own buttons off it.
CSS = PIECES_CSS + "footer{display:none!important} .status{min-height:1.6rem} .bubble-wrap{padding-top:2rem!important}"


def build_page(model_id=POCKET):
    """The Blocks of the demo; `model_id` is offered first."""
    with gr.Blocks(title=TITLE, analytics_enabled=False) as demo:
        session = gr.State(Session(model_id, "auto"))
        gr.Markdown(INTRO)

        gr.Markdown("## 1 · Choose a model and a concept")
        with gr.Row():
            model = gr.Dropdown(
                list(dict.fromkeys([model_id, *MODELS])),
                value=model_id,
                allow_custom_value=True,
                label="Model",
                info="The embedded one needs no download; or type a Hub id or a folder.",
            )
            precision = gr.Dropdown(PRECISIONS, value="auto", label="Precision", info="auto takes 4 bit when memory is tight.")
            load = gr.Button("Load model", scale=0, min_width=140)
        offer = gr.HTML(elem_id="offer")
        load_status = gr.Markdown(
            f"**{model_id}** is in use; press *Load model* after choosing another.", elem_classes="status", elem_id="load-status"
        )
        with gr.Row():
            concept = gr.Dropdown(
                concept_names(), value="Harry Potter", allow_custom_value=True, label="Concept to erase", info="Choose one, or type a name."
            )
            delta = gr.Dropdown(
                ["auto", *[f"{d:g}" for d in DELTAS]],
                value="auto",
                allow_custom_value=True,
                label="Strength of EMBER's edit",
                info="How many times the concept's part of a word is subtracted; auto tries them all.",
            )
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, info="The same seed gives the same result.")

        with gr.Accordion("A concept of your own: bring its texts", open=False):
            gr.Markdown(
                "Concepts in the list bring texts and questions. For any other, give sentences on it: at least 40, best 300, on its people, places and "
                "terms. What stands in them and in none of 300 everyday sentences is taken for the concept's own words."
            )
            with gr.Row():
                source = gr.Radio([handlers.FILE, handlers.WIKIPEDIA, handlers.MODEL], value=handlers.FILE, label="Take them from", scale=2)
                text_file = gr.File(label="A txt, md or jsonl file", file_types=[".txt", ".md", ".jsonl"], height=90, scale=2)
                get_texts = gr.Button("Get texts", scale=0, min_width=140)
            text_status = gr.Markdown(elem_classes="status", elem_id="text-status")
            texts = gr.Textbox(
                value="",
                label="Sentences on the concept, one a line",
                info="Or paste them here. Strike out what does not belong. Leave empty to use the texts that ship with a listed concept.",
                lines=6,
                max_lines=14,
                elem_id="texts",
            )
            ask_model = gr.Checkbox(
                False,
                label="Let the model write the questions",
                info="It asks itself about the concept, its neighbours and general knowledge, and keeps what it answers alike in two phrasings. "
                "Needs a chat model that knows the concept; without questions nothing is scored, and the strength must be chosen by hand.",
            )

        gr.Markdown("## 2 · Erase it")
        with gr.Row():
            where = gr.Button("Show where the knowledge lives")
            find = gr.Button("Show what EMBER would change")
            erase = gr.Button("Erase", variant="primary")
            stop_erase = gr.Button("Stop", variant="stop")
        erase_status = gr.Markdown(elem_classes="status", elem_id="erase-status")
        with gr.Accordion("What EMBER found: features of the word table, and the words it changes", open=True):
            features = gr.HTML(elem_id="features")
            tokens = gr.HTML(elem_id="tokens")
            keep = gr.Dropdown(
                [],
                value=[],
                multiselect=True,
                allow_custom_value=True,
                label="Words to leave alone",
                info="Everyday words among those found can be struck out here; erase again, and the edit is fitted without them.",
            )
        with gr.Accordion("Search the baseline's settings first", open=False):
            gr.Markdown(
                "A baseline with poor settings proves nothing. This tries settings on the validation questions, which score nothing else, and keeps the "
                "best for the next erasure. EMBER needs no such search: its strength is tried out each time."
            )
            with gr.Row():
                trials = gr.Slider(2, 40, value=10, step=1, label="Trials")
                look = gr.Button("Search", scale=0, min_width=140)
            trials_plot = gr.HTML(elem_id="trials")
        trace = gr.HTML(elem_id="trace")
        scores = gr.HTML(elem_id="scores")

        gr.Markdown("## 3 · Chat, before and after")
        suggested = gr.Dropdown([], label="Suggested questions", info="On the concept, on its neighbour, on anything else.")
        with gr.Row():
            question = gr.Textbox(label="Your question", placeholder="Ask all four at once", max_lines=3, scale=5, elem_id="question")
            send = gr.Button("Ask all", variant="primary", scale=0, min_width=120)
            stop_chat = gr.Button("Stop", variant="stop", scale=0, min_width=90)
            clear = gr.Button("Clear all", scale=0, min_width=110)
        chat_status = gr.Markdown(elem_classes="status", elem_id="chat-status")
        chats = []
        with gr.Row():
            for variant in handlers.VARIANTS:
                with gr.Column(min_width=250):
                    gr.Markdown(f"**<span style='color:{COLORS[variant]}'>●</span> {LABELS[variant]}**  \n{CHAT_HEADINGS[variant]}")
                    chats.append(
                        gr.Chatbot(show_label=False, height=380, buttons=["copy_all"], elem_id=f"chat-{variant.replace('+', '-')}")
                    )

        gr.Markdown(
            "## 4 · Attack it\nSomebody wants the erased knowledge back, and tries every erased model alike. "
            "The green line, where such a model ships, is one that **never learned** the concept: what it gains is learning, not recovery."
        )
        with gr.Row():
            attack_name = gr.Dropdown(list(ATTACKS), value="relearning", label="Attack")
            epochs = gr.Slider(1, 10, value=3, step=1, label="Epochs of retraining", info="Of the attacks that retrain.")
            attack = gr.Button("Attack", variant="primary", scale=0, min_width=140)
            stop_attack = gr.Button("Stop", variant="stop", scale=0, min_width=90)
        attack_about = gr.Markdown(handlers.about_attack("relearning"), elem_id="attack-about")
        attack_status = gr.Markdown(elem_classes="status", elem_id="attack-status")
        plot = gr.HTML(elem_id="attack-plot")
        verdict = gr.HTML(elem_id="verdict")

        gr.Markdown("## Take it with you")
        export = gr.Button("Make report and edit files")
        files = gr.Files(label="report.html, report.json, and each edit as safetensors", elem_id="files", height=140)

        gr.on(
            [model.change, precision.change, demo.load],
            handlers.offer,
            [model, precision],
            offer,
            show_progress="hidden",
            api_name="offer",
        )
        load.click(handlers.load, [model, precision], [load_status, session], show_progress="hidden", api_name="load")
        get_texts.click(
            handlers.gather_texts,
            [session, concept, source, text_file],
            [text_status, texts],
            show_progress_on=text_status,
            api_name="texts",
        )
        finding = find.click(
            handlers.find,
            [session, concept, seed, texts, ask_model],
            [erase_status, features, tokens, session, keep],
            show_progress_on=erase_status,
            api_name="find",
        )
        looking = look.click(
            handlers.search_settings,
            [session, concept, seed, trials],
            [erase_status, trials_plot, session],
            show_progress_on=erase_status,
            api_name="search",
        )
        tracing = where.click(
            handlers.trace,
            [session, concept, seed],
            [erase_status, trace],
            show_progress_on=erase_status,
            api_name="trace",
        )
        erasing = erase.click(
            handlers.erase,
            [session, concept, delta, seed, texts, ask_model, keep],
            [erase_status, features, tokens, scores, session, suggested],
            show_progress_on=erase_status,
            api_name="erase",
        )
        stop_erase.click(
            lambda: "Stopped; the model is as it was.",
            None,
            erase_status,
            cancels=[looking, tracing, finding, erasing],
            queue=False,
            api_visibility="private",
        )
        suggested.input(lambda text: text, suggested, question, queue=False, api_visibility="private")
        asking = gr.on(
            [send.click, question.submit],
            handlers.chat,
            [session, question],
            [question, chat_status, *chats, session],
            show_progress="hidden",
            api_name="chat",
        )
        stop_chat.click(lambda: "Stopped.", None, chat_status, cancels=[asking], queue=False, api_visibility="private")
        gr.on(
            [clear.click, *[chat.clear for chat in chats]],
            handlers.clear_chat,
            session,
            [*chats, session],
            queue=False,
            api_visibility="private",
        )
        attack_name.input(handlers.about_attack, attack_name, attack_about, queue=False, api_visibility="private")
        attacking = attack.click(
            handlers.attack,
            [session, attack_name, epochs],
            [attack_status, plot, verdict, session],
            show_progress_on=attack_status,
            api_name="attack",
        )
        stop_attack.click(
            lambda: "Stopped; the model is as it was.", None, attack_status, cancels=[attacking], queue=False, api_visibility="private"
        )
        export.click(handlers.export, session, files, api_name="export")
    return demo
