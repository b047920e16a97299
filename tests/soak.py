"""Several visitors at once for a while, by hand: `python -m tests.soak [--users 8] [--minutes 10]`.

Each does whole studies on the embedded model, and now and then cancels one or leaves. Every study that was not cancelled must end, the base
weights must be the same to the last bit, and memory must end within a tenth of where it stood once every user had done a study.
"""

import argparse
import os
import random
import threading
import time

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import psutil
from gradio_client import Client
from gradio_client.exceptions import AppError

from ember_demo.sources import concept_names
from ember_demo.ui.page import build_page
from ember_demo.ui.session import shared_model
from ember_demo.ui.work import MODEL_LOCK
from tests.conftest import assert_same, snapshot

QUICK = "rmu.steps=10\nember.delta=5\nrelearning.epochs=1"


def held():
    """Bytes of memory that this process holds."""
    return psutil.Process().memory_info().rss


class User(threading.Thread):
    def __init__(self, number, url, until):
        super().__init__(daemon=True)
        self.rng, self.url, self.until = random.Random(number), url, until
        self.ended, self.cancelled, self.left, self.failure = 0, 0, 0, None
        self.first = threading.Event()

    def run(self):
        client = Client(self.url, verbose=False)
        try:
            while time.monotonic() < self.until:
                chance = self.rng.random()
                if chance < 0.15:
                    self.begin(client)
                    time.sleep(self.rng.uniform(0.5, 5))
                    client.close()  # as who closes the tab
                    client, self.left = Client(self.url, verbose=False), self.left + 1
                elif chance < 0.35:
                    job = self.begin(client)
                    time.sleep(self.rng.uniform(0.5, 10))
                    job.cancel()
                    self.cancelled += 1
                else:
                    self.study(client)
                    self.ended += 1
                    self.first.set()
        except Exception as error:  # shown at the end
            self.failure = error
        finally:
            self.first.set()

    def begin(self, client):
        """One of the long works."""
        concept = self.rng.choice(concept_names())
        names = {"/erase": (concept, "5", 0), "/find": (concept, 0), "/trace": (concept, 0), "/search": (concept, 0, "rmu", 3)}
        name = self.rng.choice(list(names))
        return client.submit(*names[name], api_name=name)

    def predict(self, client, *arguments, **names):
        """As somebody does who is told that what they have just stopped is still ending."""
        while True:
            try:
                return client.predict(*arguments, **names)
            except AppError as error:
                if "other work" not in str(error):
                    raise
                time.sleep(1)

    def study(self, client):
        concept = self.rng.choice(concept_names())
        erased = self.predict(client, concept, "5", 0, "rmu", "", False, [], [], QUICK, api_name="/erase")
        assert f"**{concept} is " in erased[0], erased[0]
        talk = self.predict(client, f"Tell me about {concept}.", ["original", "ember"], False, api_name="/ask")[2]
        assert "Original" in talk and "EMBER" in talk
        if self.rng.random() < 0.3:
            job = client.submit(["relearning", "logit-lens"], "relearning.epochs=5", api_name="/attack")
            time.sleep(self.rng.uniform(0.5, 10))
            job.cancel()
            self.cancelled += 1
        attacked = self.predict(client, ["relearning"], QUICK, api_name="/attack")
        assert "attack is over" in attacked[0], attacked[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    demo = build_page().queue(max_size=100, api_open=False, default_concurrency_limit=100)
    _, url, _ = demo.launch(prevent_thread_lock=True, ssr_mode=False, quiet=True)
    model = shared_model("pocket", "auto")
    before = snapshot(model)
    users = [User(n, url, time.monotonic() + 60 * options.minutes) for n in range(options.users)]
    for user in users:
        user.start()
    for user in users:
        user.first.wait()
    start = held()
    for user in users:
        user.join()
    end = held()
    for number, user in enumerate(users):
        print(f"user {number}: {user.ended} studies ended, {user.cancelled} cancelled, left {user.left} times, failure: {user.failure!r}")
    print(f"memory: {start / 1e6:.0f} MB once each had done a study, {end / 1e6:.0f} MB at the end ({end / start - 1:+.1%})")
    assert not any(user.failure for user in users)
    with MODEL_LOCK:  # what was cancelled last may still be putting the model back
        assert_same(model, before)
    assert end <= 1.1 * start
    print("all held")
    demo.close()


if __name__ == "__main__":
    main()
