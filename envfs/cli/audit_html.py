"""The audit report as one HTML page: no script, nothing loaded from anywhere, charts as SVG."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Any, Final

from envfs.cli.audit_report import name_of
from envfs.cli.audit_summary import ACCESSES, Summary
from envfs.cli.output import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# The colours of Okabe and Ito, which people who see few colours can tell apart.
_COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
_OTHERS: Final = "#999999"
_WIDTH, _HEIGHT, _LEFT, _FOOT = 720, 180, 44, 18
_MOST_DAYS: Final = 92

_STYLE: Final = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: .5em 0 2em; width: 100% }
th, td { text-align: left; padding: .2em .6em; border-bottom: 1px solid #ddd; vertical-align: top }
td { overflow-wrap: anywhere }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.bad { color: #a00; font-weight: bold } .key { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em }
svg { display: block; max-width: 100% } svg text { font-size: 11px; fill: #555 }
"""


def page(summary: Summary, head: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The whole document. Everything that comes out of records is escaped: users choose the names of their files."""
    return "\n".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Audit report</title>',
            # Should anything ever get past the escaping, it still can run and load nothing.
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<style>{_STYLE}</style></head><body>",
            _introduction(summary, head),
            "<h2>Files opened, by day</h2>",
            _opens_chart(summary),
            "<h2>Refused, by day</h2>",
            _chart({day: Counter({"refused": count}) for day, count in summary.refusals_by_day.items()}, ["refused"]),
            *_tables(summary, names),
            "</body></html>\n",
        )
    )


def _text(value: object) -> str:
    return escape(printable(str(value)))


def _introduction(summary: Summary, head: Mapping[str, Any]) -> str:
    asked = ", ".join(f"{name} {value}" for name, value in head["asked"].items()) or "everything"
    css = "" if head["trail"] == "authentic" else ' class="bad"'
    span = f"{summary.first} to {summary.last}" if summary.records else "none"
    problems = "".join(f'<li class="bad">{_text(problem)}</li>' for problem in head["problems"])
    return (
        f"<h1>Audit report</h1><p>Made {_text(head['made'])} for {_text(head['by'])}; about: {_text(asked)}.<br>"
        f"{summary.records} records ({_text(span)}); the trail is <span{css}>{_text(head['trail'])}</span>.</p>"
        + (f"<ul>{problems}</ul>" if problems else "")
    )


def _opens_chart(summary: Summary) -> str:
    totals: Counter[str] = Counter()
    for users in summary.opens_by_day.values():
        totals.update(users)
    return _chart(summary.opens_by_day, [user for user, _ in totals.most_common()])


def _chart(days: Mapping[str, Counter[str]], series: Sequence[str]) -> str:
    """Stacked bars, one for each day on which there was something; the newest days if there are too many."""
    if not days:
        return "<p>none</p>"
    shown = sorted(days)[-_MOST_DAYS:]
    named, others = series[: len(_COLOURS)], series[len(_COLOURS) :]
    most = max(days[day].total() for day in shown)
    step = (_WIDTH - _LEFT) / len(shown)
    bars = []
    for number, day in enumerate(shown):
        top = float(_HEIGHT)
        parts = [(name, days[day][name], colour) for name, colour in zip(named, _COLOURS, strict=False)]
        parts.append(("others", sum(days[day][name] for name in others), _OTHERS))
        for name, count, colour in parts:
            height = count / most * (_HEIGHT - 10)
            top -= height
            if count:
                bars.append(
                    f'<rect x="{_LEFT + number * step:.1f}" y="{top:.1f}" width="{max(step * 0.8, 1):.1f}"'
                    f' height="{height:.1f}" fill="{colour}"><title>{_text(f"{day}: {name}: {count}")}</title></rect>'
                )
    legend = "".join(
        f'<span class="key" style="background:{colour}"></span>{_text(name)}'
        for name, colour in [*zip(named, _COLOURS, strict=False), *([("others", _OTHERS)] if others else [])]
    )
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT + _FOOT}" viewBox="0 0 {_WIDTH} {_HEIGHT + _FOOT}" role="img">'
        f'<text x="0" y="14">{most}</text><text x="0" y="{_HEIGHT}">0</text>{"".join(bars)}'
        f'<text x="{_LEFT}" y="{_HEIGHT + 14}">{_text(shown[0])}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 14}" text-anchor="end">{_text(shown[-1])}</text></svg><p>{legend}</p>'
    )


def _tables(summary: Summary, names: Mapping[str, str]) -> Iterable[str]:
    yield _table(
        "Who used which key",
        ["user", "key", *(f"#{access}" for access in ACCESSES), "#direct", "#refused", "#files", "first", "last"],
        [
            [user, name_of(key, names), *(use.accesses[access] for access in ACCESSES), use.direct, use.refused,
             len(use.files), use.first, use.last]
            for (user, key), use in sorted(summary.uses.items())
        ],
    )  # fmt: skip
    yield _table(
        "What was refused",
        ["user", "key", "what", "#times", "last", "why", "path"],
        [
            [user, name_of(key, names), event, refusal.count, refusal.last, refusal.why, path or "-"]
            for (user, key, event, path), refusal in sorted(summary.refusals.items())
        ],
    )
    for title, found in (("What was changed", summary.changes), ("Alarms", summary.alarms)):
        rows = [[one.time, one.user, one.event, name_of(one.key, names), one.what] for one in found]
        yield _table(title, ["time", "user", "what", "key", "details"], rows)


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Headings that begin with # are of numbers."""
    if not rows:
        return f"<h2>{_text(title)}</h2><p>none</p>"
    css = [' class="n"' if heading.startswith("#") else "" for heading in headings]
    head = "".join(
        f"<th{one}>{_text(heading.removeprefix('#'))}</th>" for one, heading in zip(css, headings, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{one}>{_text(cell)}</td>" for one, cell in zip(css, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<h2>{_text(title)}</h2><table><tr>{head}</tr>{body}</table>"
