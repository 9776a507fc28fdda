"""The style of the doctor's page."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark;
  --ground: #fff; --card: #f6f7f9; --ink: #1d2330; --soft: #5b6472; --line: #dfe3e8;
  --fault: #b3261e; --warning: #8a5a00; --note: #4a5a72; --good: #1b6e3c;
  --series0: #3367b8; --series1: #d9822b; --series2: #3a9276; --series3: #8b5fbf; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #14171c; --card: #1d2128; --ink: #e6e9ee; --soft: #a0a9b6; --line: #333a44;
  --fault: #ff8a80; --warning: #f2bf5e; --note: #a9b8d0; --good: #7fd6a0;
  --series0: #7aa5ea; --series1: #eca460; --series2: #6cc3a6; --series3: #b796e3; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 10px; overflow-wrap: anywhere; }
section { margin-top: 26px; padding: 18px 20px; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
section p { margin: 0 0 8px; max-width: 78ch; overflow-wrap: anywhere; }
.finding.fault { border-left: 4px solid var(--fault); }
.finding.warning { border-left: 4px solid var(--warning); }
.summary { font-size: 17px; margin: 0 0 14px; }
.summary.bad { color: var(--fault); } .summary.good { color: var(--good); }
.contents { list-style: none; margin: 0; padding: 0; }
.contents li { margin: 3px 0; } a { color: inherit; overflow-wrap: anywhere; }
.level { display: inline-block; min-width: 74px; padding: 0 6px; border: 1px solid currentColor; border-radius: 10px;
  font-size: 12px; line-height: 18px; font-weight: 600; text-align: center; vertical-align: 2px; }
.level.fault { color: var(--fault); } .level.warning { color: var(--warning); } .level.note { color: var(--note); }
code { font: 13px ui-monospace, Menlo, Consolas, monospace; background: var(--line); padding: 1px 5px;
  border-radius: 4px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: 12px;
  margin-top: 14px; }
figure { margin: 0; min-width: 0; }
figure div { display: flex; align-items: center; justify-content: center; height: 116px; background: var(--ground);
  border: 1px solid var(--line); border-radius: 6px; }
figure img { display: block; max-width: 112px; max-height: 112px; min-width: 40px; object-fit: contain; }
figcaption { font-size: 12px; line-height: 1.35; padding-top: 4px; overflow-wrap: anywhere; }
figcaption b { display: block; font-weight: 600; } figcaption span { display: block; color: var(--soft); }
.none, .detail, .more, .legend { color: var(--soft); } .none { font-size: 12px; }
.more { margin-top: 10px; } .names p { margin: 2px 0; }
svg text { fill: var(--ink); font-size: 12px; dominant-baseline: central; }
svg text.row { text-anchor: end; } svg text.number { fill: var(--soft); }
.series0 { fill: var(--series0); background: var(--series0); }
.series1 { fill: var(--series1); background: var(--series1); }
.series2 { fill: var(--series2); background: var(--series2); }
.series3 { fill: var(--series3); background: var(--series3); }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }
.legend span { margin-right: 18px; }
"""
