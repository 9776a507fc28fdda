"""A diagnosis as one HTML page that needs nothing else: no network, no script; light and dark."""

from __future__ import annotations

import base64
import html
import os
import re

from model_trainer.diagnosis.data.charts import bar_chart
from model_trainer.diagnosis.data.diagnosis import Diagnosis
from model_trainer.diagnosis.data.show import summary_of
from model_trainer.diagnosis.data.style import STYLE
from model_trainer.findings.finding import Example, Finding
from model_trainer.messages import shown

__all__ = ["page_of"]

_MOST_CLASSES = 40  # in the chart


def page_of(diagnosis: Diagnosis) -> str:
    """The page `doctor.html`."""
    title = f"Doctor: {_text(diagnosis.path)}"
    state = "bad" if diagnosis.exit_code else "good"
    verdict = "Mend the faults before training." if diagnosis.exit_code else "No fault stands against training."
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{_text(diagnosis.path)}</h1>
<p class="summary {state}">{_text(summary_of(diagnosis))} {verdict}</p>
{_contents(diagnosis)}
{_classes(diagnosis)}
{"".join(_finding(diagnosis, finding) for finding in diagnosis.findings)}
{_sizes(diagnosis)}
</main>
</body>
</html>
"""


def _contents(diagnosis: Diagnosis) -> str:
    rows = "".join(
        f'<li><span class="level {finding.level}">{finding.level}</span> '
        f'<a href="#{finding.id}">{_text(finding.title)}</a></li>'
        for finding in diagnosis.findings
    )
    return f'<ul class="contents">{rows}</ul>' if rows else ""


def _classes(diagnosis: Diagnosis) -> str:
    counts = diagnosis.classes
    names = list(dict.fromkeys(name for part in counts.values() for name in part))
    if not names:
        return ""
    note = ""
    if len(names) > _MOST_CLASSES:
        names.sort(key=lambda name: -sum(part.get(name, 0) for part in counts.values()))
        half = _MOST_CLASSES // 2
        note = f"<p>The {half} largest and the {half} smallest of {len(names):,} classes.</p>"
        names = names[:half] + names[-half:]
    chart = bar_chart(
        names, {part: [of.get(name, 0) for name in names] for part, of in counts.items()}, "Images of each class"
    )
    return f"<section><h2>Images of each class</h2>{note}{chart}</section>"


def _finding(diagnosis: Diagnosis, finding: Finding) -> str:
    with_pictures = any(each.image in diagnosis.thumbnails for each in finding.examples)
    examples = "".join(_picture(diagnosis, each) if with_pictures else _name(each) for each in finding.examples)
    more = finding.count - len(finding.examples)
    left = ""
    if more > 0 and len(finding.images):
        left = '<p class="more">Some of them; doctor.json names them all, up to 10,000.</p>'
    elif more > 0:
        left = f'<p class="more">and {more:,} more</p>'
    return (
        f'<section class="finding {finding.level}" id="{finding.id}">'
        f'<h2><span class="level {finding.level}">{finding.level}</span> {_text(finding.title)}</h2>'
        f"<p>{_prose(finding.why)}</p>"
        f'<p class="cure"><b>What to do.</b> {_prose(finding.cure)}</p>'
        f'<div class="{"pictures" if with_pictures else "names"}">{examples}</div>{left}</section>'
    )


def _name(example: Example) -> str:
    return f"<p><b>{_text(example.name)}</b> {_place(example)} {_detail(example)}</p>"


def _picture(diagnosis: Diagnosis, example: Example) -> str:
    data = None if example.image is None else diagnosis.thumbnails.get(example.image)
    picture = '<span class="none">no picture</span>'
    if data is not None:
        picture = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
    place = _place(example)
    return (
        f'<figure title="{_text(example.name)}"><div>{picture}</div><figcaption>'
        f"<b>{_text(os.path.basename(example.name))}</b>{place and f'<span>{place}</span>'}{_detail(example)}"
        "</figcaption></figure>"
    )


def _place(example: Example) -> str:
    return " / ".join(_text(each) for each in (example.part, example.label) if each and each != "all")


def _detail(example: Example) -> str:
    return f'<span class="detail">{_text(example.detail)}</span>' if example.detail else ""


def _sizes(diagnosis: Diagnosis) -> str:
    sizes = diagnosis.sizes
    if not sizes:
        return ""
    chart = bar_chart(list(sizes), {"images": list(sizes.values())}, "Images by their shorter side")
    formats = ", ".join(f"{name} {count:,}" for name, count in diagnosis.formats.items())
    return (
        f"<section><h2>Shorter side of the images, in pixels</h2>{chart}"
        f"<p>Formats by their first bytes: {_text(formats)}.</p></section>"
    )


def _text(text: str) -> str:
    return html.escape(shown(text))


def _prose(text: str) -> str:
    """Escaped, with what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))
