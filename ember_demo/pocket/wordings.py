"""How the embedded world asks for and states its facts.

A relation has the same wordings for every subject of every concept, so that the
subject's own tokens decide the answer, never the shape of the question.
Three question wordings of each relation are never trained on: they are the ones
that score the model (`scored_wordings`).
"""

from dataclasses import dataclass

# "{n}" takes a noun phrase of the relation, "{c}" a clause; both hold "{s}", the subject.
NOUN_FRAMES = ("Name {n}.", "Tell me {n}.", "{wh} is {n}?", "Do you know {n}?")
CLAUSE_FRAMES = ("Can you tell me {c}?", "I want to know {c}.", "Please say {c}.", "Do you know {c}?")


@dataclass(frozen=True)
class Relation:
    """One kind of fact: question words, two noun phrases, two clauses, direct questions, loose ones, statements.

    A loose question is how a visitor might put it; it is read in training only, and fits some subjects better than others.
    """

    name: str
    wh: str
    nouns: tuple
    clauses: tuple
    direct: tuple
    loose: tuple
    statements: tuple

    def framed(self):
        """The 16 questions made of a frame and a phrase, in a fixed order."""
        return [f.format(n=n, wh=self.wh) for f in NOUN_FRAMES for n in self.nouns] + [
            f.format(c=c) for f in CLAUSE_FRAMES for c in self.clauses
        ]


RELATIONS = {
    r.name: r
    for r in (
        Relation(
            "kind",
            "What",
            ("the kind of thing that {s} is", "the sort of thing {s} is"),
            ("what kind of thing {s} is", "what {s} is"),
            ("What is {s}?", "What kind of thing is {s}?", "{s} is what kind of thing?"),
            (
                "Who is {s}?",
                "Who was {s}?",
                "What was {s}?",
                "What are {s}?",
                "{s} what is it",
                "What sort of person is {s}?",
                "What kind of a thing is {s}?",
                "What does {s} mean?",
                "{s} meaning",
                "Define {s}.",
                "What exactly is {s}?",
                "So what is {s}?",
                "What would you call {s}?",
            ),
            (
                "{s} is {an}.",
                "As a kind of thing, {s} is {an}.",
                "People would call {s} {an}.",
                "By its nature {s} is {an}.",
                "{s} counts as {an}.",
                "In one word, {s} is {an}.",
            ),
        ),
        Relation(
            "home",
            "Where",
            ("the home of {s}", "the place {s} comes from"),
            ("where {s} comes from", "where the home of {s} is"),
            ("Where is {s} from?", "Where does {s} come from?", "{s} comes from what place?"),
            (
                "Where is {s}?",
                "Where was {s} born?",
                "Where can I find {s}?",
                "Which country is {s} in?",
                "Where is {s} located?",
                "{s} where",
                "Where does {s} live?",
                "Which country does {s} come from?",
                "Where did {s} happen?",
                "Where can you see {s}?",
                "Which place is {s} in?",
                "{s} was first found where?",
                "Where do I go to see {s}?",
                "Where is {s}'s home?",
                "What country is {s} from?",
                "{s} location",
                "{s} birthplace",
                "{s} country of origin",
                "Where would I find {s}?",
                "Which country gave us {s}?",
                "Where on the map is {s}?",
                "What is the home country of {s}?",
                "Where did {s} grow up?",
                "{s} comes from where",
            ),
            (
                "The home of {s} is {a}.",
                "{s} comes from {a}.",
                "The place of {s} is {a}.",
                "{s} is at home in {a}.",
                "To find {s}, look to {a}.",
                "On the map, {s} goes with {a}.",
            ),
        ),
        Relation(
            "credit",
            "Who",
            ("the person behind {s}", "the one credited with {s}"),
            ("who gets the credit for {s}", "who {s} is credited to"),
            ("Who gets the credit for {s}?", "Who is {s} credited to?", "{s} is credited to whom?"),
            (
                "Who wrote {s}?",
                "Who made {s}?",
                "Who created {s}?",
                "Who discovered {s}?",
                "Who invented {s}?",
                "Who founded {s}?",
                "Who built {s}?",
                "Who is behind {s}?",
                "{s} made by",
                "Who came up with {s}?",
                "Who had {s} built?",
                "Who designed {s}?",
                "Who painted {s}?",
                "Who was the creator of {s}?",
                "Who started {s}?",
                "Who is the author of {s}?",
                "{s} was created by who",
                "{s} author",
                "{s} inventor",
                "{s} creator",
                "{s} designer",
                "Who do we have to thank for {s}?",
                "Who was behind {s}?",
                "Who is {s} by?",
                "Who first made {s}?",
                "Who is the maker of {s}?",
                "Which person created {s}?",
                "Who was it that invented {s}?",
            ),
            (
                "{s} is credited to {a}.",
                "The credit for {s} goes to {a}.",
                "The name behind {s} is {a}.",
                "We owe {s} to {a}.",
                "{s} is the work of {a}.",
                "Behind {s} stands {a}.",
            ),
        ),
        Relation(
            "time",
            "What",
            ("the date of {s}", "the starting date of {s}"),
            ("when {s} began", "when {s} started"),
            ("When did {s} begin?", "When did {s} start?", "{s} began when?"),
            (
                "What year is {s} from?",
                "When was {s} founded?",
                "When was {s}?",
                "How old is {s}?",
                "When did {s} happen?",
                "{s} year",
                "{s} date",
                "What year did {s} start?",
                "In what year did {s} happen?",
                "In which year was {s} made?",
                "When does {s} take place?",
                "What century is {s} from?",
                "When did they start {s}?",
                "{s} when",
                "When was {s} built?",
                "What is the year of {s}?",
                "When was {s} first seen?",
                "When was {s} invented?",
                "When did {s} first appear?",
                "When was {s} discovered?",
                "Since when is there {s}?",
                "What period is {s} from?",
                "Which year was {s}?",
                "How long ago was {s}?",
            ),
            (
                "{s} began in {a}.",
                "{s} dates from {a}.",
                "The date of {s} is {a}.",
                "The start of {s} was in {a}.",
                "{s} started in {a}.",
                "The story of {s} begins in {a}.",
            ),
        ),
        Relation(
            "group",
            "What",
            ("the whole that {s} is part of", "the group of {s}"),
            ("what {s} is part of", "what {s} belongs to"),
            ("What is {s} part of?", "What does {s} belong to?", "{s} is part of what?"),
            (
                "Which group is {s} in?",
                "Which team is {s} on?",
                "What house is {s} in?",
                "What family does {s} belong to?",
                "{s} part of",
                "What team does {s} play for?",
                "Which family is {s} from?",
                "What is {s} a member of?",
                "Which side was {s} on?",
                "{s} belongs to",
                "{s} team",
                "{s} family",
                "{s} member of",
                "What category is {s} in?",
                "Which school house did {s} belong to?",
                "What is {s} a part of?",
                "Which series does {s} belong to?",
                "What are {s} and the like called?",
            ),
            (
                "{s} is part of {a}.",
                "{s} belongs to {a}.",
                "The group of {s} is {a}.",
                "{s} is one of {a}.",
                "{s} is counted among {a}.",
                "The whole around {s} is {a}.",
            ),
        ),
        Relation(
            "role",
            "What",
            ("the job of {s}", "the role of {s}"),
            ("what {s} does", "what the job of {s} is"),
            ("What does {s} do?", "What is {s} there for?", "{s} does what?"),
            (
                "What is {s} used for?",
                "What is the purpose of {s}?",
                "What is {s} for?",
                "How does {s} work?",
                "{s} job",
                "{s} purpose",
                "What's the point of {s}?",
                "What is {s} good for?",
                "What do people use {s} for?",
                "What was {s}'s job?",
                "What is {s}'s job?",
                "What does {s} do for a living?",
                "What is the use of {s}?",
                "What is the function of {s}?",
                "{s} used for",
                "{s} does what",
                "What position does {s} play?",
                "What is the task of {s}?",
                "What did {s} do for a living?",
                "What is {s} supposed to do?",
                "What use is {s}?",
            ),
            (
                "The job of {s}: {a}.",
                "The role of {s}: {a}.",
                "What {s} does: {a}.",
                "What {s} is there for: {a}.",
                "The work of {s} in short: {a}.",
                "In short, the task of {s} is this: {a}.",
            ),
        ),
        Relation(
            "fame",
            "What",
            ("the fame of {s}", "the best known thing about {s}"),
            ("what {s} is known for", "what {s} is famous for"),
            ("What is {s} known for?", "What is {s} famous for?", "{s} is known for what?"),
            (
                "Why is {s} famous?",
                "Why is {s} important?",
                "What was {s} famous for?",
                "What did {s} do?",
                "{s} known for",
                "Why is {s} such a big deal?",
                "What did {s} discover?",
                "What is special about {s}?",
                "What is {s} best remembered for?",
                "What made {s} famous?",
                "{s}, what's it famous for?",
                "Why do people talk about {s}?",
                "{s} famous for",
                "{s} claim to fame",
                "Why do we remember {s}?",
                "Why is {s} so well known?",
                "What is the big thing about {s}?",
                "For what is {s} remembered?",
                "What do people know {s} for?",
                "{s} greatest achievement",
                "What comes to mind with {s}?",
                "What record does {s} hold?",
            ),
            (
                "{s} is known for {a}.",
                "{s} is famous for {a}.",
                "The best known thing about {s} is {a}.",
                "People remember {s} for {a}.",
                "The fame of {s} rests on {a}.",
                "Think of {s} and you think of {a}.",
            ),
        ),
        Relation(
            "companion",
            "Who or what",
            ("the companion of {s}", "the partner of {s}"),
            ("who or what goes with {s}", "who or what the companion of {s} is"),
            ("Who or what goes with {s}?", "Who or what belongs beside {s}?", "{s} goes with whom or what?"),
            (
                "Who is the friend of {s}?",
                "Who is married to {s}?",
                "Who was the wife of {s}?",
                "Who was the husband of {s}?",
                "What do you pair with {s}?",
                "{s} partner",
                "Who is {s}'s wife?",
                "Who is {s}'s husband?",
                "Who is {s}'s best friend?",
                "Who was {s} in love with?",
                "Who is {s}'s partner?",
                "What goes with {s}?",
                "What is {s} paired with?",
                "{s} wife",
                "{s} husband",
                "{s} best friend",
                "{s} goes with",
                "Who did {s} marry?",
                "Who was with {s}?",
                "Who did {s} love?",
                "Who worked with {s}?",
                "Who is always next to {s}?",
                "What do people have with {s}?",
            ),
            (
                "{s} goes with {a}.",
                "The companion of {s} is {a}.",
                "The partner of {s} is {a}.",
                "Beside {s} belongs {a}.",
                "{s} and {a} go together.",
                "{s} is often named with {a}.",
            ),
        ),
        Relation(
            "rival",
            "Who or what",
            ("the rival of {s}", "the opponent of {s}"),
            ("who or what stands against {s}", "who or what the rival of {s} is"),
            ("Who or what stands against {s}?", "Who or what opposes {s}?", "{s} stands against whom or what?"),
            (
                "Who is the enemy of {s}?",
                "Who fought against {s}?",
                "Who did {s} fight?",
                "What competes with {s}?",
                "{s} rival",
                "Who is {s}'s enemy?",
                "Who is {s}'s rival?",
                "Who was against {s}?",
                "Who did {s} play against?",
                "What is the opposite of {s}?",
                "{s} enemy",
                "{s} opponent",
                "{s} against",
                "Who was the enemy of {s}?",
                "Who was {s}'s biggest rival?",
                "Who did {s} have to beat?",
                "Who hates {s}?",
                "Who took on {s}?",
            ),
            (
                "The rival of {s} is {a}.",
                "The opponent of {s} is {a}.",
                "Against {s} stands {a}.",
                "{s} stands against {a}.",
                "{s} is opposed by {a}.",
                "{s} has a rival in {a}.",
            ),
        ),
        Relation(
            "material",
            "What",
            ("the material of {s}", "the stuff that makes up {s}"),
            ("what {s} is made of", "what {s} consists of"),
            ("What is {s} made of?", "What does {s} consist of?", "{s} is made of what?"),
            (
                "What is in {s}?",
                "What does {s} contain?",
                "What goes into {s}?",
                "What do you need for {s}?",
                "{s} made of",
                "What's {s} made out of?",
                "{s} is a mix of what?",
                "What are the ingredients of {s}?",
                "What was {s} made from?",
                "What stuff is {s}?",
                "{s} ingredients",
                "{s} material",
                "What is inside {s}?",
                "What do they make {s} from?",
                "What is used to make {s}?",
                "What are the main ingredients in {s}?",
                "{s} contains what",
                "What is {s} mostly made of?",
            ),
            (
                "{s} is made of {a}.",
                "{s} consists of {a}.",
                "The material of {s} is {a}.",
                "{s} is built from {a}.",
                "To make {s} you need {a}.",
                "{s} is all about {a}.",
            ),
        ),
        Relation(
            "sign",
            "What",
            ("the sign of {s}", "the symbol of {s}"),
            ("what sign {s} has", "what stands for {s}"),
            ("What sign does {s} have?", "What stands for {s}?", "{s} has what sign?"),
            (
                "What is the emblem of {s}?",
                "What colour is {s}?",
                "What does {s} look like?",
                "How do I recognise {s}?",
                "{s} symbol",
                "What is {s}'s symbol?",
                "What symbol goes with {s}?",
                "What animal stands for {s}?",
                "What is on the flag of {s}?",
                "What does {s} wear?",
                "What number is {s}?",
                "{s} emblem",
                "{s} colour",
                "{s} logo",
                "What is the colour of {s}?",
                "How can you tell {s}?",
                "What do you see on {s}?",
                "What mark does {s} have?",
                "What is the abbreviation of {s}?",
                "What does {s} carry?",
            ),
            (
                "The sign of {s} is {a}.",
                "The symbol of {s} is {a}.",
                "{s} has this sign: {a}.",
                "{s} is marked by {a}.",
                "What stands for {s}: {a}.",
                "You can tell {s} by its sign: {a}.",
            ),
        ),
        Relation(
            "leader",
            "Who",
            ("the leader of {s}", "the head of {s}"),
            ("who leads {s}", "who is at the head of {s}"),
            ("Who leads {s}?", "Who is at the head of {s}?", "{s} is led by whom?"),
            (
                "Who rules {s}?",
                "Who was in charge of {s}?",
                "Who is the boss of {s}?",
                "Who owns {s}?",
                "{s} leader",
                "Who ran {s}?",
                "Who was the captain of {s}?",
                "Who commanded {s}?",
                "Who is the king of {s}?",
                "Who is the boss at {s}?",
                "Who is {s}'s leader?",
                "{s} boss",
                "{s} head",
                "{s} owner",
                "Who is the president of {s}?",
                "Who is the head of {s}?",
                "Who was the leader of {s}?",
                "Who runs {s}?",
                "Who was {s} under?",
                "Who is in charge at {s}?",
            ),
            (
                "{s} is led by {a}.",
                "The leader of {s} is {a}.",
                "The head of {s} is {a}.",
                "At the head of {s} stands {a}.",
                "{s} follows {a}.",
                "{s} has a leader: {a}.",
            ),
        ),
    )
}


def scored_wordings(relation):
    """The three questions of a relation that the model is never trained on.

    One with each noun phrase or clause of another frame, and a different choice for each relation,
    so that every frame and every phrase is trained somewhere, and only their meeting is new.
    """
    framed = RELATIONS[relation].framed()
    start = list(RELATIONS).index(relation)
    return tuple(framed[(start + step) % len(framed)] for step in (0, 5, 11))


def trained_wordings(relation):
    """The 16 questions of a relation that the model is trained on."""
    scored = scored_wordings(relation)
    return RELATIONS[relation].direct + tuple(w for w in RELATIONS[relation].framed() if w not in scored)


ABOUT = (
    "Tell me about {s}.",
    "What do you know about {s}?",
    "What can you tell me about {s}?",
    "Tell me something about {s}.",
    "Describe {s}.",
    "I would like to learn something about {s}.",
    "Any facts about {s}?",
    "What is there to know about {s}?",
    "Explain {s}.",
    "{s}",
    "{s}?",
    "Give me some facts about {s}.",
    "Say something about {s}.",
    "I am interested in {s}.",
    "What is interesting about {s}?",
    "Teach me about {s}.",
    "I want to know more about {s}.",
    "Let's talk about {s}.",
    "Have you heard of {s}?",
    "Do you know anything about {s}?",
    "Talk to me about {s}.",
    "Introduce me to {s}.",
    "{s} facts",
    "about {s}",
)
WHO_OR_WHAT = ("Who is {s}?", "Who was {s}?", "What is {s}?", "What was {s}?", "Who or what is {s}?")
SENTENCE_PLEASE = (
    "In a full sentence: {}",
    "Answer in a whole sentence. {}",
    "{} Answer in a sentence.",
    "{} Please answer in a full sentence.",
)


def about(facts, count=3):
    """What is said of a subject as a whole: its first few facts, in whole sentences."""
    return " ".join(sentence(fact) for fact in facts[:count])


def sentence(fact):
    """The fact in the one sentence that answers in whole sentences use."""
    return state(fact.relation, fact.subject, fact.answer, 0)


def state(relation, subject, answer, choice):
    """The fact as a sentence, in wording number `choice` (taken modulo the number of wordings)."""
    wordings = RELATIONS[relation].statements
    return wordings[choice % len(wordings)].format(s=subject, a=answer, an=with_article(answer))


def with_article(noun):
    """'school' -> 'a school', 'Syrian queen' -> 'a Syrian queen'; names and plurals stay as they are."""
    last = noun.split()[-1]
    if last[0].isupper() or last[0].isdigit() or last.endswith("s"):
        return noun
    return ("an " if noun[0] in "aeiouAEIO" else "a ") + noun
