"""How the report's page looks, on light and dark screens."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --soft: #667079; --line: #dfe3e7; --back: #fff; --box: #f5f7f9;
  --train: #2f6fb0; --held: #d9822b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --soft: #98a2ab; --line: #343a41; --back: #16191c;
  --box: #20252a; --train: #5b9bdc; --held: #e59a4c; } }
* { box-sizing: border-box; }
body { max-width: 1180px; margin: 0 auto; padding: 24px; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 36px 0 8px; padding-bottom: 4px; border-bottom: 1px solid var(--line); }
h3 { font-size: 15px; margin: 20px 0 4px; }
h3 span { color: var(--soft); font-weight: 400; }
p { margin: 0 0 10px; color: var(--soft); }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 18px 0 0; }
.tiles a { flex: 1 1 120px; padding: 10px 14px; background: var(--box); border-radius: 8px; color: inherit;
  text-decoration: none; }
.tiles b { display: block; font-size: 24px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: 13px; }
.scroll { max-height: 70vh; overflow: auto; margin: 0 0 14px; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: 3px 18px 3px 0; }
th { font-weight: 500; color: var(--soft); white-space: nowrap; }
tr + tr td, tr + tr th { border-top: 1px solid var(--line); }
.beside { display: flex; flex-wrap: wrap; gap: 0 60px; }
.numbers { width: 100%; font-variant-numeric: tabular-nums; }
.numbers th, .numbers td { white-space: nowrap; text-align: right; }
.numbers td:nth-child(2) { width: 60%; min-width: 120px; padding-top: 8px; }
.numbers td:nth-child(2) .bar { display: flex; height: 12px; }
.bar i, .key { background: var(--train); }
.bar i { min-width: 2px; }
.key { display: inline-block; width: 12px; height: 12px; border-radius: 2px; margin-left: 8px; }
.key:first-child { margin-left: 0; }
.bar i.held, .key.held { background: var(--held); }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 16px; }
figure { margin: 0; padding: 8px; background: var(--box); border-radius: 8px; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto 6px; border-radius: 3px; }
figcaption { font-size: 13px; line-height: 1.4; }
figcaption b { font-weight: 600; }
figcaption em { color: var(--soft); font-style: normal; }
.length { padding: 0 5px; border-radius: 4px; background: var(--held); color: #16191c; font-size: 12px; }
.missing { height: 120px; display: grid; place-items: center; margin-bottom: 6px; color: var(--soft);
  border: 1px dashed var(--soft); border-radius: 3px; }
"""
