"""A synchronous grammar: 8000 English sentences with German, French and Chinese translations.

Ten subjects × eight verbs × ten objects × ten places, 9 to 11 English words each. English and
French say subject verb object place; German says subject verb place object with the second part
of the verb at the end (*hat … gekauft*, *wird … verkaufen*); Chinese puts the place before the
verb. Verbs agree with the subject in number, adjectives with their noun in gender and case.
No phrase stands for two meanings in any language, so each translation is the only right one.
"""

from typing import Dict, Iterator, NamedTuple, Tuple

from espnet_spire.utils.errors import SpireError

LANGS = ("en", "de", "fr", "zh")
SLOTS = ("subject", "verb", "object", "place")


class Phrase(NamedTuple):
    """A subject, object or place; German and French are in the case the sentence needs."""

    en: str
    de: str
    fr: str
    zh: str
    plural: bool = False


class Verb(NamedTuple):
    """Finite forms are (singular, plural); ``de_end`` closes the German sentence.

    ``zh_before`` stands before the Chinese place and ``zh`` after it.
    """

    en: Tuple[str, str]
    de: Tuple[str, str]
    de_end: str
    fr: Tuple[str, str]
    zh_before: str
    zh: str


SUBJECTS = (
    Phrase("The young doctor", "Der junge Arzt", "Le jeune médecin", "年轻的医生"),
    Phrase("The tired farmer", "Der müde Bauer", "Le fermier fatigué", "疲惫的农民"),
    Phrase("My little sister", "Meine kleine Schwester", "Ma petite sœur", "我的小妹妹"),
    Phrase("Our new teacher", "Unsere neue Lehrerin", "Notre nouvelle professeure", "我们的新老师"),
    Phrase(
        "The happy children", "Die fröhlichen Kinder", "Les enfants joyeux", "快乐的孩子们", True
    ),
    Phrase("The rich merchant", "Der reiche Kaufmann", "Le riche marchand", "富有的商人"),
    Phrase(
        "Two brave soldiers",
        "Zwei tapfere Soldaten",
        "Deux soldats courageux",
        "两名勇敢的士兵",
        True,
    ),
    Phrase("The clever student", "Die kluge Studentin", "L'étudiante intelligente", "聪明的学生"),
    Phrase("Her grandmother", "Ihre Großmutter", "Sa grand-mère", "她的奶奶"),
    Phrase("The famous singer", "Die berühmte Sängerin", "La célèbre chanteuse", "著名的歌手"),
)

_HAVE_DE, _WILL_DE = ("hat", "haben"), ("wird", "werden")
VERBS = (
    Verb(("bought",) * 2, _HAVE_DE, "gekauft", ("a acheté", "ont acheté"), "在", "买了"),
    Verb(("found",) * 2, _HAVE_DE, "gefunden", ("a trouvé", "ont trouvé"), "在", "找到了"),
    Verb(("will sell",) * 2, _WILL_DE, "verkaufen", ("vendra", "vendront"), "将在", "卖掉"),
    Verb(
        ("is cleaning", "are cleaning"),
        ("reinigt", "reinigen"),
        "",
        ("nettoie", "nettoient"),
        "正在",
        "清洗",
    ),
    Verb(("repaired",) * 2, _HAVE_DE, "repariert", ("a réparé", "ont réparé"), "在", "修好了"),
    Verb(("lost",) * 2, _HAVE_DE, "verloren", ("a perdu", "ont perdu"), "在", "弄丢了"),
    Verb(
        ("is drawing", "are drawing"),
        ("zeichnet", "zeichnen"),
        "",
        ("dessine", "dessinent"),
        "正在",
        "画",
    ),
    Verb(
        ("will borrow",) * 2, _WILL_DE, "ausleihen", ("empruntera", "emprunteront"), "将在", "借用"
    ),
)

OBJECTS = (
    Phrase("a heavy basket", "einen schweren Korb", "un panier lourd", "一个沉重的篮子"),
    Phrase("an old clock", "eine alte Uhr", "une vieille horloge", "一座旧时钟"),
    Phrase("a red umbrella", "einen roten Regenschirm", "un parapluie rouge", "一把红色的雨伞"),
    Phrase("a small guitar", "eine kleine Gitarre", "une petite guitare", "一把小吉他"),
    Phrase("a wooden chair", "einen hölzernen Stuhl", "une chaise en bois", "一把木椅子"),
    Phrase("a silver lamp", "eine silberne Lampe", "une lampe argentée", "一盏银色的灯"),
    Phrase("a yellow bicycle", "ein gelbes Fahrrad", "un vélo jaune", "一辆黄色的自行车"),
    Phrase("a round mirror", "einen runden Spiegel", "un miroir rond", "一面圆镜子"),
    Phrase("a green boat", "ein grünes Boot", "un bateau vert", "一艘绿色的船"),
    Phrase("a blue carpet", "einen blauen Teppich", "un tapis bleu", "一块蓝色的地毯"),
)

PLACES = (
    Phrase("near the river", "am Fluss", "près de la rivière", "河边"),
    Phrase("in the garden", "im Garten", "dans le jardin", "花园里"),
    Phrase("at the market", "auf dem Markt", "au marché", "市场上"),
    Phrase("behind the school", "hinter der Schule", "derrière l'école", "学校后面"),
    Phrase("under the bridge", "unter der Brücke", "sous le pont", "桥下"),
    Phrase("beside the church", "neben der Kirche", "à côté de l'église", "教堂旁边"),
    Phrase("in the kitchen", "in der Küche", "dans la cuisine", "厨房里"),
    Phrase("at the airport", "am Flughafen", "à l'aéroport", "机场"),
    Phrase("outside the hotel", "vor dem Hotel", "devant l'hôtel", "酒店外面"),
    Phrase("on the island", "auf der Insel", "sur l'île", "岛上"),
)

SIZES = (len(SUBJECTS), len(VERBS), len(OBJECTS), len(PLACES))
NUM_SENTENCES = SIZES[0] * SIZES[1] * SIZES[2] * SIZES[3]


class Parts(NamedTuple):
    """Which phrase fills each slot: positions in SUBJECTS, VERBS, OBJECTS, PLACES."""

    subject: int
    verb: int
    object: int
    place: int


def parts_of(index: int) -> Parts:
    """The phrases of sentence ``index``; the place changes fastest.

    Raises:
        SpireError: ``index`` is not in 0…7999.

    >>> parts_of(7999)
    Parts(subject=9, verb=7, object=9, place=9)
    """
    if not 0 <= index < NUM_SENTENCES:
        raise SpireError(f"the mini grammar has no sentence {index}, only 0 to {NUM_SENTENCES - 1}")
    rest, place = divmod(index, SIZES[3])
    rest, object_ = divmod(rest, SIZES[2])
    subject, verb = divmod(rest, SIZES[1])
    return Parts(subject, verb, object_, place)


def index_of(parts: Parts) -> int:
    """Inverse of :func:`parts_of`."""
    index = 0
    for position, size in zip(parts, SIZES, strict=True):
        index = index * size + position
    return index


def phrases(parts: Parts, lang: str) -> Dict[str, str]:
    """Subject, object and place as they stand in the sentence in ``lang``."""
    chosen = (SUBJECTS[parts.subject], OBJECTS[parts.object], PLACES[parts.place])
    return {
        slot: getattr(phrase, lang)
        for slot, phrase in zip(("subject", "object", "place"), chosen, strict=True)
    }


def render(parts: Parts, lang: str) -> str:
    """The sentence in one language, cased and with its full stop."""
    verb = VERBS[parts.verb]
    number = int(SUBJECTS[parts.subject].plural)
    phrase = phrases(parts, lang)
    subject, object_, place = phrase["subject"], phrase["object"], phrase["place"]
    if lang == "en":
        return f"{subject} {verb.en[number]} {object_} {place}."
    if lang == "fr":
        return f"{subject} {verb.fr[number]} {object_} {place}."
    if lang == "de":
        end = f" {verb.de_end}" if verb.de_end else ""
        return f"{subject} {verb.de[number]} {place} {object_}{end}."
    return f"{subject}{verb.zh_before}{place}{verb.zh}{object_}。"


def sentence(index: int) -> Dict[str, str]:
    """Sentence ``index`` (0…7999) in the four languages: ``{"en": …, "de": …, "fr": …, "zh": …}``.

    >>> sentence(0)["de"]
    'Der junge Arzt hat am Fluss einen schweren Korb gekauft.'
    """
    parts = parts_of(index)
    return {lang: render(parts, lang) for lang in LANGS}


def spans(index: int, lang: str) -> Dict[str, Tuple[int, int]]:
    """Where subject, object and place stand in the sentence: (start, end) in characters."""
    parts = parts_of(index)
    text = render(parts, lang)
    found = {slot: (text.index(phrase), phrase) for slot, phrase in phrases(parts, lang).items()}
    return {slot: (start, start + len(phrase)) for slot, (start, phrase) in found.items()}


def sentences() -> Iterator[Dict[str, str]]:
    """All sentences in order."""
    return (sentence(index) for index in range(NUM_SENTENCES))
