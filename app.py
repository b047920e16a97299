"""Start the demo: `python app.py [--model ID] [--tour] [--mcp] [--host H] [--port P] [--share]`."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import argparse
import contextlib
import socket
import sys

with contextlib.suppress(ImportError):
    import spaces  # noqa: F401 - on a Hugging Face Space with ZeroGPU it must come before torch

from ember_demo.errors import EmberDemoError
from ember_demo.texts import LARGEST_FILE
from ember_demo.ui.look import CSS, THEME
from ember_demo.ui.model_step import load_behind
from ember_demo.ui.page import build_page


def port(text):
    """A port's number; argparse says what is wrong with another."""
    if not 1 <= int(text) <= 65535:
        raise ValueError
    return int(text)


def address(text):
    """A host to listen on; argparse says what is wrong with one that this machine has not."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(text, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.bind(place)
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"this machine has no address {text} ({error.strerror}); leave it out, or give 0.0.0.0 for all"
        ) from None
    return text


def main():
    parser = argparse.ArgumentParser(description="Erase a concept from a language model, chat before and after, attack it.")
    parser.add_argument("--model", default="pocket", help="pocket (embedded), a Hub id or a folder")
    parser.add_argument("--host", type=address, help="address to listen on; default 127.0.0.1, or GRADIO_SERVER_NAME")
    parser.add_argument("--port", type=port, help="default: the first free one from 7860, or GRADIO_SERVER_PORT")
    parser.add_argument("--share", action="store_true", help="also make a public link through gradio.live")
    parser.add_argument("--tour", action="store_true", help="open with the guided tour")
    parser.add_argument(
        "--mcp", action="store_true", help="also serve the steps as tools for agents (MCP); needs pip install 'gradio[mcp]'"
    )
    options = parser.parse_args()
    if options.share or (options.host or os.environ.get("GRADIO_SERVER_NAME")) not in (None, "127.0.0.1", "localhost", "::1"):
        os.environ["EMBER_PUBLIC"] = "1"
    try:
        load_behind(options.model)
        demo = build_page(options.model, options.tour).queue(max_size=20, api_open=False, default_concurrency_limit=20)
        demo.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            theme=THEME,
            css=CSS,
            ssr_mode=False,
            run_history=False,
            mcp_server=options.mcp,
            max_file_size=LARGEST_FILE,
        )
    except (EmberDemoError, ImportError) as error:
        sys.exit(f"app.py: {error}")
    except ValueError as error:  # Gradio could not reach its own page
        sys.exit(f"app.py: nothing answers at {options.host} ({error}); choose another --host." if options.host else f"app.py: {error}")
    except OSError as error:
        sys.exit(f"app.py: the port is in use ({error}); choose another with --port." if "port" in str(error) else f"app.py: {error}")


if __name__ == "__main__":
    main()
