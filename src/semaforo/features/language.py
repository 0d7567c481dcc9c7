"""In which script and language a text is written, and how much it looks like code.

The script follows from its signs. The language is told for seven that share the Latin script, by which of their
commonest words occur: enough to tell them apart in a sentence or two, and silent of all others.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

LANGUAGES: dict[str, str] = {
    "english": (
        "the of and to in is that for it was with as his on be at by this have from or had not are but which "
        "you they what there we were been their has would will if can who when how does"
    ),
    "german": (
        "der die das und in den von zu mit sich des auf für ist im dem nicht ein eine als auch es an werden "
        "aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur "
        "oder aber wenn ich wir was kann"
    ),
    "french": (
        "de la le et les des en un du une que est pour qui dans par plus pas au sur ne se ce il sont avec son "
        "aux cette ont mais comme ou si leur être deux nous vous elle je tout fait où quel quelle"
    ),
    "spanish": (
        "de la que el en y los del se las por un para con no una su al lo como más pero sus le ya o este sí "
        "porque esta entre cuando muy sin sobre también me hasta hay donde quien desde todo nos qué cuál"
    ),
    "italian": (
        "di e il la che in a per un del è non una con i le si da sono dei al come alla nel gli più della "
        "anche ha lo ma se delle o dal questo nella ed degli essere cui due perché quale cosa"
    ),
    "portuguese": (
        "de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele das tem "
        "à seu sua ou ser quando muito há nos já está eu também só pelo pela até isso qual"
    ),
    "dutch": (
        "de het een en van in is dat op te zijn met voor niet aan er om ook als dan maar bij uit nog naar "
        "door hij ze wordt werd over heeft hebben kan deze dit wat wel worden geen wij hoe waar"
    ),
}
"""Language → its commonest words."""

_BLOCKS: tuple[tuple[int, int, int], ...] = (
    (0x0370, 0x03FF, 2), (0x0400, 0x052F, 1), (0x0590, 0x077F, 3), (0x08A0, 0x08FF, 3), (0x0900, 0x0DFF, 4),
    (0x1F00, 0x1FFF, 2), (0x3040, 0x30FF, 5), (0x3400, 0x4DBF, 5), (0x4E00, 0x9FFF, 5), (0xAC00, 0xD7AF, 5),
    (0xFB1D, 0xFDFF, 3), (0xFE70, 0xFEFF, 3), (0xFF66, 0xFF9F, 5), (0x20000, 0x2FA1F, 5),
)  # fmt: skip
# Blocks of Unicode, first and last, and which of `SCRIPTS` they belong to, counted from 1.
SCRIPTS = ("cyrillic", "greek", "semitic", "indic", "cjk")
"""Scripts that are told: ``semitic`` is Arabic and Hebrew, ``cjk`` Chinese, Japanese and Korean."""

_SIGNS_OF_CODE = (
    "{ } ; = < > [ ] & | # \\ @ def elif import lambda self none null nil true false const var let func "
    "fn int char float void bool str struct enum static public private class extends override async await "
    "function typeof println printf print len range foreach endif include return throw catch std vec impl "
    "select where join insert"
)
_CODE = frozenset(_SIGNS_OF_CODE.split())
_MUCH_CODE = 10.0

LANGUAGE_NUMBERS = (
    *(f"text.{script}" for script in SCRIPTS),
    *(f"text.{language}" for language in LANGUAGES),
    "text.code",
    "text.indented",
)
"""Names of what `language_vector` gives, in its order."""

_SPEAKS: dict[str, tuple[int, ...]] = {}
for _place, _words in enumerate(LANGUAGES.values()):
    for _word in _words.split():
        _SPEAKS[_word] = (*_SPEAKS.get(_word, ()), _place)
_COMMON = frozenset(_SPEAKS)
_STARTS = np.array([0, *(edge for first, last, _ in _BLOCKS for edge in (first, last + 1))], np.uint32)
_KINDS = np.array([0, *(kind for _, _, script in _BLOCKS for kind in (script, 0))], np.int64)


def language_vector(seen: str, unlike: set[str]) -> list[float]:
    """Return the shares (0…1) of its signs in each script, and of its different words common in each language.

    After them come how much it looks like code (0…1), and which share of its lines is indented.

    Args:
        seen: A text.
        unlike: Its different words, in lower case.
    """
    scripts = [0.0] * len(SCRIPTS)
    if not seen.isascii():
        signs = np.frombuffer(seen.encode("utf-32-le", "surrogatepass"), np.uint32)
        kinds = _KINDS.take(_STARTS.searchsorted(signs, "right") - 1)
        scripts = (np.bincount(kinds, minlength=len(SCRIPTS) + 1)[1:] / len(seen)).tolist()
    spoken = [0] * len(LANGUAGES)
    for word in unlike & _COMMON:
        for place in _SPEAKS[word]:
            spoken[place] += 1
    n = len(unlike) or 1
    code = min(1.0, len(unlike & _CODE) / _MUCH_CODE)
    indented = (seen.count("\n ") + seen.count("\n\t")) / (seen.count("\n") or 1)
    return [*scripts, *(count / n for count in spoken), code, indented]


def language_of(numbers: Mapping[str, float]) -> str:
    """Return the language that features of a text speak for, or else its script; "" where they speak for none.

    Args:
        numbers: What `semaforo.features.text.text_numbers` gives.
    """
    script = max(SCRIPTS, key=lambda name: numbers[f"text.{name}"])
    if numbers[f"text.{script}"] > 0.3:
        return script
    first, second = sorted((numbers[f"text.{name}"], name) for name in LANGUAGES)[:-3:-1]
    return first[1] if first[0] >= 0.1 and first[0] >= 1.25 * second[0] else ""
