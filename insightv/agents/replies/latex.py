r"""LaTeX in JSON written with single backslashes: `\frac` would be read as a form feed and "rac". Knows no replies."""

from __future__ import annotations

import re


class UnclearEscape(ValueError):
    """A backslash that may be meant in more than one way."""


_ESCAPE = re.compile(r"""\\(?:u[0-9a-fA-F]{4}|["\\/]|[bfnrt](?![A-Za-z])|([A-Za-z]+)|([^A-Za-z'\n\r]))""")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Commands by the letter that makes them an escape of JSON. (An `u` needs four hex digits to be one.) A real tab or line
# break may stand before any word: a name whose rest is a word (`\thead`, `\nother`) is no sure sign of a command.
_KNOWN = {
    "t": _names(
        "text textbf textit textmd textrm texttt textsf textsc textsl textup textnormal textstyle textcolor "
        "textwidth textheight textsuperscript textsubscript textasciicircum textasciitilde textbackslash textbar "
        "textbraceleft textbraceright textbullet textcelsius textcent textcircled textcopyright textdegree textdagger "
        "textdollar textellipsis textemdash textendash texteuro textgreater textless textminus textmu textohm "
        "textonehalf textonequarter textthreequarters textparagraph textperthousand textpm textquotedblleft "
        "textquotedblright textquoteleft textquoteright textquotesingle textregistered textsection textsterling "
        "textsurd texttimes texttrademark textunderscore textvisiblespace textyen texorpdfstring "
        "times theta thetasym tau tilde triangle triangledown triangleq triangleleft trianglelefteq triangleright "
        "trianglerighteq twoheadleftarrow twoheadrightarrow therefore thickapprox thicksim thickspace thinspace "
        "tfrac tbinom tanh to top tag tiny title toprule today thanks thispagestyle tableofcontents tabcolsep "
        "tabularnewline ttfamily twocolumn topmargin tesla tonne tothe"
    ),
    "r": _names(
        "rho right rightarrow rightarrowtail rightharpoonup rightharpoondown rightleftarrows rightleftharpoons "
        "rightrightarrows rightsquigarrow rightthreetimes rightangle rightmargin rightskip rangle rbrace rbrack rceil "
        "rfloor rgroup rmoustache rparen rrbracket rvert rVert rhd risingdotseq rtimes restriction ratio real reals "
        "rank root rlap rm rmfamily raggedleft raggedright raise raisebox ref refstepcounter reflectbox relax "
        "renewcommand renewenvironment resizebox rotatebox rowcolor rule radian"
    ),
    "n": _names(
        "nabla natural neq not notin notag notni nearrow nwarrow neswarrow nwsearrow "
        "nleq nleqq nleqslant ngeq ngeqq ngeqslant ngtr ngtrsim ngtrless nlesssim nlessgtr "
        "nprec npreceq npreccurlyeq nsucc nsucceq nsucccurlyeq ncong nsimeq nequiv nasymp "
        "nsubseteq nsubseteqq nsupseteq nsupseteqq nsqsubseteq nsqsupseteq nshortmid nshortparallel "
        "ntriangleleft ntrianglelefteq ntriangleright ntrianglerighteq nvdash nvDash nVdash nVDash "
        "nleftarrow nrightarrow nleftrightarrow nLeftarrow nRightarrow nLeftrightarrow "
        "nolimits nonumber norm nicefrac negthinspace negmedspace negthickspace nonscript nulldelimiterspace "
        "newline newpage newcommand newenvironment newtheorem newcounter newlength newif newfont newblock "
        "newcolumntype nobreak nobreakdash nobreakspace nolinebreak nopagebreak nocite noindent nointerlineskip "
        "nonfrenchspacing normalfont normalsize normalcolor nameref numberwithin newton"
    ),
    "u": _names(
        "underline underbrace underbracket underset underbar underaccent undergroup underparen underleftarrow "
        "underrightarrow underleftrightarrow uparrow updownarrow upuparrows upharpoonleft upharpoonright uplus upsilon "
        "upalpha upbeta upgamma updelta upepsilon uptheta uplambda upmu upnu uppi uprho upsigma uptau upphi upchi "
        "uppsi upomega ulcorner urcorner unlhd unrhd utilde unit units unitfrac unboldmath uline uppercase upshape url "
        "usepackage"
    ),
}
# A line break and a word or a variable, as likely as a command: told apart by what stands around them, if at all.
_EITHER = _names(
    "nu ne ni neg nexists nless nmid nsim nparallel napprox nsubset nsupset nmodels node num number nano neper"
)


def mend_escapes(source: str) -> str:
    r"""Double the backslashes of LaTeX commands that JSON would refuse or eat.

    A form feed or backspace is never meant in text, so `\b` and `\f` before a letter are commands; `\t`, `\r` and `\n`
    are where the word is a command's name.

    Raises:
        UnclearEscape: it cannot be told what is meant.
    """
    if "\\" not in source:
        return source
    latex = any(match[2] or _is_command(match) for match in _ESCAPE.finditer(source))
    doubled = re.search(r"\\\\[A-Za-z]", source) is not None
    maths = latex or ("$" in source and not doubled)

    def mend(match: re.Match[str]) -> str:
        word, mark = match[1], match[2]
        if not word and not mark:
            return match[0]
        before = source[max(0, match.start() - 2) : match.start()]
        command = mark is not None or _is_command(match) or (word == "tan" and latex)
        if not command and word[0] == "n":
            # "5 \ne 3": a line seldom ends in a blank, and a writer who doubles backslashes has meant the break.
            if word in _EITHER and (maths or (before.endswith(" ") and not doubled)):
                raise UnclearEscape(f"\\{word} is a command or a line break: it cannot be told")
            return match[0]
        if not command or before == "\\\\":
            raise UnclearEscape(f"\\{(word or mark)[:20]} has an unclear backslash; in JSON write \\\\")
        return "\\" + match[0]

    return _ESCAPE.sub(mend, source)


def _is_command(match: re.Match[str]) -> bool:
    word = match[1]
    if not word:
        return False
    if word[0] not in _KNOWN or word in _KNOWN[word[0]]:
        return True
    return word in _EITHER and match.string.startswith("{", match.end())
