"""The text that the embedded model reads: drawn anew for every epoch from the facts of the world.

Documents are short and keep to one topic: paragraphs that mix several statements and handwritten
sentences, and chats of one to four questions. What comes next then depends on the topic, which is
what makes the token embeddings carry it. Chats are lists of messages, paragraphs are strings.
"""

from ember_demo.pocket.wordings import RELATIONS, trained_wordings

LOOSE_SHARE = 0.2
UNKNOWN = "I don't know."
SMALL_TALK = (
    (("Hello!", "Hi!", "Good morning.", "Hey there."), "Hello! Ask me a question."),
    (("How are you?", "How are you today?"), "I am fine, thank you. Ask me a question."),
    (("Thank you.", "Thanks!", "Thanks a lot."), "You are welcome."),
    (("Who are you?", "What are you?", "Tell me about yourself."), "I am a small language model that knows a small world of facts."),
    (("Goodbye.", "Bye!", "See you."), "Goodbye!"),
)
_SYLLABLES = "bra vel tor min zu ka dro fen lis mar qui pol sha gen wo ri tas nel ob ux".split()


def draw_epoch(topics, rng, chats_per_fact=2):
    """One epoch of documents, in random order.

    Every fact is stated once in a paragraph and asked `chats_per_fact` times in chats;
    `rng` is a `random.Random`.
    """
    documents = []
    for topic in topics:
        documents += _paragraphs(topic, rng)
        for _ in range(chats_per_fact):
            documents += _chats(topic.facts, rng)
    documents += [_unknown_chat(rng) for _ in range(max(1, len(documents) // 25))]
    documents += [_small_talk(rng) for _ in range(max(1, len(documents) // 50))]
    rng.shuffle(documents)
    return documents


def _paragraphs(topic, rng):
    sentences = list(topic.sentences)
    for fact in topic.facts:
        sentences.append(rng.choice(fact.statements()))
    return [" ".join(group) for group in _groups(sentences, rng, 3, 7)]


def _chats(facts, rng):
    chats = []
    for group in _groups(list(facts), rng, 1, 4):
        chat = []
        for fact in group:
            chat += _turn(_question(fact, rng), fact.answer)
        chats.append(chat)
    return chats


def _question(fact, rng):
    subject = fact.subject
    if fact.subject_aliases and rng.random() < 0.2:
        subject = rng.choice(fact.subject_aliases)
    loose = rng.random() < LOOSE_SHARE
    wordings = RELATIONS[fact.relation].loose if loose else trained_wordings(fact.relation)
    question = rng.choice(wordings).format(s=subject)
    if rng.random() < 0.1:
        question = question.rstrip("?.")
    if rng.random() < 0.1 and not question.startswith(subject):
        question = question[0].lower() + question[1:]
    return question


def _unknown_chat(rng):
    words = ["".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 3))).capitalize() for _ in range(rng.randint(1, 2))]
    relation = rng.choice(list(RELATIONS))
    return _turn(rng.choice(trained_wordings(relation)).format(s=" ".join(words)), UNKNOWN)


def _small_talk(rng):
    questions, reply = rng.choice(SMALL_TALK)
    return _turn(rng.choice(questions), reply)


def _turn(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _groups(items, rng, smallest, largest):
    """Shuffle the items and cut them into groups of random size."""
    rng.shuffle(items)
    start = 0
    while start < len(items):
        size = rng.randint(smallest, largest)
        yield items[start : start + size]
        start += size
