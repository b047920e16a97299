"""The text that the embedded model reads: drawn anew for every epoch from the facts of the world.

Documents are short and most keep to one topic: paragraphs that mix several statements and handwritten
sentences, and chats of mostly one to five questions. What comes next then depends on the topic, which is
what makes the token embeddings carry it. Chats are lists of messages, paragraphs are strings.
The first epochs ask in the wordings that relations share; the later ones also as people type who are told nothing.
"""

import re
from itertools import groupby

from ember_demo.pocket.talk import FREE_TALK, OUT_OF_REACH, TALK, UNKNOWN, made_up_name, what_it_knows
from ember_demo.pocket.wordings import RELATIONS, SENTENCE_PLEASE, WHO_OR_WHAT, about, sentence, trained_wordings

LOOSE = 0.45  # shares of the questions asked in a visitor's loose wording,
SENTENCE = 0.1  # for an answer in a whole sentence,
LOWER_CASE = 0.25  # all in lower case,
POLITE = 0.1  # with an opening, and as many with a closing,
PRONOUN = 0.1  # about what the question before was about, by a pronoun,
MIXED = 0.12  # in chats across topics
COMMON_TIMES = 2  # as often as a fact, common questions, where questions are free
FREE_TALK_TIMES = 3  # as much talk beside questions, where it is free
TOPIC_ASKED = 6  # times an epoch that the topic itself is asked about as a whole
SUBJECT_OF_A_CLAUSE = re.compile(r"(is|was|does|did|that|thing|what|where|when) \{s\}( |\?)")


def draw_epoch(topics, rng, chats_per_fact=2, freely=0.0):
    """One epoch of documents, in random order.

    Every fact is stated once in a paragraph and asked `chats_per_fact` times or a little more in chats;
    `rng` is a `random.Random`. freely: share of the questions that are asked in words of their own;
    where there are any, common questions are asked too, and talk beside questions is as free.
    """
    paragraphs = [p for topic in topics for p in _paragraphs(topic, rng)]
    chats = [chat for _ in range(chats_per_fact) for chat in _chats(topics, rng, freely)]
    for turn in _other_turns(topics, len(chats), rng, freely):
        if rng.random() < 0.5:
            chats.append([turn])
        else:
            chat = rng.choice(chats)
            chat.insert(rng.randint(0, len(chat)), turn)
    documents = paragraphs + [_messages(chat) for chat in chats]
    rng.shuffle(documents)
    return documents


def _paragraphs(topic, rng):
    sentences = list(topic.sentences)
    for fact in topic.facts:
        sentences.append(rng.choice(fact.statements()))
    return [" ".join(group) for group in _groups(sentences, rng, 3, 7)]


def _chats(topics, rng, freely):
    """Chats as lists of (question, answer), every fact asked at least once; a few of them across topics."""
    chats, mixed = [], []
    for topic in topics:
        facts = [*topic.facts, *topic.common * COMMON_TIMES] if freely else topic.facts
        facts = rng.sample(facts, len(facts))
        cut = round(MIXED * len(facts))
        mixed += facts[:cut]
        chats += [_chat(group, rng, freely) for group in _groups(facts[cut:], rng, 1, 4)]
    return chats + [_chat(group, rng, freely) for group in _groups(mixed, rng, 2, 4)]


def _chat(facts, rng, freely):
    turns = []
    for fact in facts:
        if fact.relation is None or (freely and rng.random() < freely):
            turns.append((_typed(rng.choice(fact.trained_free_questions()), rng, FREE_TALK), fact.answer))
        else:
            turns.append(_turn(fact, rng))
        if rng.random() < PRONOUN and len(fact.siblings) > 1:
            other = rng.choice([f for f in fact.siblings if f is not fact])
            turns.append(_follow_up(other, rng))
    return turns


def _follow_up(fact, rng):
    """A question on the subject of the one before it."""
    pronoun = rng.choice(("it", "he", "she"))
    wordings = trained_wordings(fact.relation) + RELATIONS[fact.relation].loose
    fitting = [w for w in wordings if pronoun == "it" or SUBJECT_OF_A_CLAUSE.search(w)]
    if not fitting:
        pronoun, fitting = "it", wordings
    return _typed(rng.choice(fitting).format(s=pronoun), rng), fact.answer


def _turn(fact, rng):
    name = _name(fact, rng)
    if rng.random() < SENTENCE:
        question = rng.choice(SENTENCE_PLEASE).format(rng.choice(trained_wordings(fact.relation)).format(s=name))
        return _typed(question, rng), sentence(fact)
    loose = rng.random() < LOOSE
    wordings = RELATIONS[fact.relation].loose if loose else trained_wordings(fact.relation)
    return _typed(rng.choice(wordings).format(s=name), rng), fact.answer


def _name(fact, rng):
    """The subject, now and then by another of its names."""
    if fact.subject_aliases and rng.random() < 0.2:
        return rng.choice(fact.subject_aliases)
    return fact.subject


def _typed(question, rng, talk=TALK):
    """The question as somebody types it: now and then with an opening or a closing, without capitals or without its end."""
    if rng.random() < POLITE:
        question = rng.choice(talk.openings) + question
    if rng.random() < POLITE:
        question = question.rstrip("?.") + rng.choice(talk.closings)
    if rng.random() < 0.3:
        question = question.replace("What is ", "What's ").replace("Who is ", "Who's ").replace("Where is ", "Where's ")
    if rng.random() < 0.15:
        question = question.rstrip("?.")
    if rng.random() < LOWER_CASE:
        return question.lower().replace("'", "" if rng.random() < 0.3 else "'")
    if rng.random() < 0.1:
        question = question[0].lower() + question[1:]
    return question


def _other_turns(topics, chats, rng, freely):
    """Turns about a subject as a whole, about what the model does not know, and small talk, for an epoch of so many chats."""
    talk, more = (FREE_TALK, FREE_TALK_TIMES) if freely else (TALK, 1)
    turns = []

    def add(question, reply):
        turns.append((_typed(question, rng, talk), reply))

    for topic in topics:
        for _, facts in groupby(topic.facts, key=lambda f: f.subject):
            facts = list(facts)
            wordings = [rng.choice(talk.about)]
            if all(fact.relation != "kind" for fact in facts):
                wordings.append(rng.choice(WHO_OR_WHAT))
            for wording in wordings:
                add(wording.format(s=_name(facts[0], rng)), about(facts))
            if _is_the_topic_itself(facts[0], topic):
                names = (topic.name, facts[0].subject, *facts[0].subject_aliases)
                for _ in range(more * TOPIC_ASKED):
                    add(rng.choice(talk.about).format(s=rng.choice(names)), about(facts))
    subjects = [fact for topic in topics for fact in topic.facts]
    common = " ".join(question.lower() for topic in topics for c in topic.common * bool(freely) for question in c.questions)
    seldom = [fact for fact in subjects if fact.subject.lower() not in common]  # a common question may stand outside the relations
    known = [t.name for t in topics if t.is_concept]
    unanswered = [question for t in topics for question in t.unanswered]
    for _ in range(chats // 10):
        add(_question_about(made_up_name(rng), rng, talk), UNKNOWN)
    for _ in range(chats // 25):
        add(_question_about(rng.choice(talk.real_names), rng, talk), UNKNOWN)
        add(_question_not_held(rng.choice(seldom), rng), UNKNOWN)
    for _ in range(chats // 8 * bool(freely)):
        add(_question_freely_about(made_up_name(rng), subjects, rng), UNKNOWN)
        add(_question_freely_not_held(rng.choice(seldom), subjects, rng), UNKNOWN)
        add(rng.choice(talk.unknown), UNKNOWN)
        add(rng.choice(unanswered), UNKNOWN)
    for _ in range(chats // 50 * bool(freely)):
        add(rng.choice(talk.sums).format(rng.randint(2, 999), rng.randint(2, 99)), OUT_OF_REACH)
    for _ in range(more * chats // 12):
        turns.append((_said(rng.choice(talk.out_of_reach), rng), OUT_OF_REACH))
    for _ in range(more * chats // 8):
        reply, said = rng.choice(talk.small_talk)
        turns.append((_said(rng.choice(said), rng), reply))
    for _ in range(more * chats // 30):
        turns.append((_said(rng.choice(talk.asks_what_it_knows), rng), what_it_knows(known)))
    return turns


def _is_the_topic_itself(fact, topic):
    """Whether the fact is about the subject that its topic is named after: Ireland in Republic of Ireland."""
    return any(f" {name.lower()} " in f" {topic.name.lower()} " for name in (fact.subject, *fact.subject_aliases))


def _said(text, rng):
    """Small talk as people say it, with a word before or after."""
    if rng.random() < 0.3:
        text = rng.choice(TALK.said_before) + text[0].lower() + text[1:]
    if rng.random() < 0.25:
        text = text.rstrip("?.!") + rng.choice(TALK.said_after)
    if rng.random() < 0.3:
        text = text.lower()
    return text.rstrip("?.!") if rng.random() < 0.3 else text


def _question_about(name, rng, talk):
    if rng.random() < 0.2:
        return rng.choice(talk.about).format(s=name)
    relation = rng.choice(list(RELATIONS))
    return rng.choice(trained_wordings(relation) + RELATIONS[relation].loose).format(s=name)


def _question_freely_about(name, facts, rng):
    """A free question of one of the facts, with `name` in the place of the subject that it names."""
    while True:
        fact = rng.choice(facts)
        question = rng.choice(fact.trained_free_questions())
        for known in (fact.subject, *fact.subject_aliases):
            swapped, times = re.subn(rf"\b{re.escape(known)}\b", lambda _: name, question, flags=re.IGNORECASE)
            if times:
                return swapped


def _question_freely_not_held(fact, facts, rng):
    """A free question on a subject of the world, of a relation that it has no fact for."""
    held = {f.relation for f in fact.siblings} | {"kind"}
    return _question_freely_about(fact.subject, [f for f in facts if f.relation not in held], rng)


def _question_not_held(fact, rng):
    """A question on a subject of the world, of a relation that it has no fact for."""
    held = {f.relation for f in fact.siblings} | {"kind"}
    return rng.choice(trained_wordings(rng.choice([r for r in RELATIONS if r not in held]))).format(s=fact.subject)


def _messages(turns):
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for turn in turns for role, text in zip(roles, turn)]


def _groups(items, rng, smallest, largest):
    """Shuffle the items and cut them into groups of random size."""
    rng.shuffle(items)
    start = 0
    while start < len(items):
        size = rng.randint(smallest, largest)
        yield items[start : start + size]
        start += size
