r"""LaTeX in JSON written with single backslashes: `\frac` would be read as a form feed and "rac". Knows no replies."""

from __future__ import annotations

import re


class UnclearEscape(ValueError):
    """A backslash that may be meant in more than one way."""


_ESCAPE = re.compile(r"""\\(?:u[0-9a-fA-F]{4}|["\\/]|[bfnrt](?![A-Za-z])|([A-Za-z]+)|([^A-Za-z'\n\r]))""")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Commands by the letter that makes them an escape of JSON. (An `u` needs four hex digits to be one.)
_KNOWN = {
    "t": _names(
        "text textbf textit textrm texttt textsf textsc textnormal textstyle textcolor times theta tau tilde triangle "
        "triangleq triangleleft triangleright therefore tfrac tbinom tanh to top tag tiny thinspace"
    ),
    "r": _names(
        "rho right rightarrow rightharpoonup rightleftharpoons rangle rceil rfloor rm real ref rule root rtimes rvert "
        "rVert rbrace rbrack"
    ),
    "n": _names(
        "nabla neq not notin nleq ngeq natural nearrow nwarrow newline nonumber nsubseteq nsupseteq nparallel "
        "nrightarrow nleftarrow ncong nprec"
    ),
    "u": _names("underline underbrace underset uparrow updownarrow uplus upsilon unit ulcorner urcorner"),
}
# A line break and a word or a variable, as likely as a command: told apart by nothing in the text.
_EITHER = _names("nu ne ni neg nexists nless nmid nsim")


def mend_escapes(source: str) -> str:
    r"""Double the backslashes of LaTeX commands that JSON would refuse or eat.

    A form feed or backspace is never meant in text, so `\b` and `\f` before a letter are commands; `\t`, `\r` and `\n`
    are where the word is a command's name.

    Raises:
        UnclearEscape: it cannot be told what is meant.
    """
    if "\\" not in source:
        return source
    latex = any(_is_command(match) for match in _ESCAPE.finditer(source))
    maths = latex or ("$" in source and not re.search(r"\\\\[A-Za-z]", source))

    def mend(match: re.Match[str]) -> str:
        word, mark = match[1], match[2]
        if not word and not mark:
            return match[0]
        after_pair = source[max(0, match.start() - 2) : match.start()] == "\\\\"
        command = mark is not None or _is_command(match) or (word == "tan" and latex)
        if not command and word[0] == "n":
            if word in _EITHER and maths:
                raise UnclearEscape(f"\\{word} is a command or a line break: it cannot be told")
            return match[0]
        if not command or after_pair:
            raise UnclearEscape(f"\\{(word or mark)[:20]} has an unclear backslash; in JSON write \\\\")
        return "\\" + match[0]

    return _ESCAPE.sub(mend, source)


def _is_command(match: re.Match[str]) -> bool:
    word = match[1]
    if not word:
        return False
    return word[0] not in _KNOWN or word in _KNOWN[word[0]]
