"""The looks of a report and the few lines of script that sort its tables; it is all readable without the script."""

STYLE = """
:root { color-scheme: light dark; --paper:#fff; --ink:#1b1f24; --soft:#59636e; --rule:#d5dae0; --wash:#f4f6f8; --good:#0b6e4f;
  --c0:#0072b2; --c1:#d55e00; --c2:#009e73; --c3:#b5588f; --c4:#3d9bd1; --c5:#c98600; --c6:#1b1f24; --c7:#8a7d00; }
@media (prefers-color-scheme: dark) { :root { --paper:#14171b; --ink:#e6e9ed; --soft:#a2abb6; --rule:#363d46; --wash:#1d2127;
  --good:#5fd0a5; --c0:#4aa8e0; --c1:#f0803c; --c2:#2fc79a; --c3:#e09cc6; --c4:#8accf2; --c5:#eeb040; --c6:#e6e9ed; --c7:#efe36a;
  } }
* { box-sizing: border-box; }
body { margin:0 auto; max-width:1240px; padding:24px 20px 60px; background:var(--paper); color:var(--ink);
  font:16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; font-variant-numeric:tabular-nums; }
h1 { font-size:1.7rem; line-height:1.2; margin:0 0 4px; } h2 { font-size:1.25rem; margin:44px 0 6px; }
h3 { font-size:1rem; margin:18px 0 4px; }
p { max-width:78ch; margin:6px 0 10px; overflow-wrap:anywhere; } .soft, figcaption { color:var(--soft); font-size:.9rem; }
.headline { font-size:1.15rem; background:var(--wash); border-left:4px solid var(--c0); padding:12px 16px; margin:16px 0; }
.headline p { margin:4px 0; }
.pair { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(100%, 430px), 1fr)); gap:10px 28px; align-items:start; }
figure { margin:8px 0; min-width:0; } figcaption { max-width:70ch; }
.figure-title { font-weight:600; margin:0 0 4px; overflow-wrap:anywhere; }
figure > svg { display:block; width:100%; max-width:640px; height:auto; }
svg text { fill:var(--ink); font-size:12px; font-family:inherit; } svg .tick, svg .small { fill:var(--soft); font-size:11px; }
svg .small { font-size:10px; } svg .name { font-size:11.5px; } svg .axis { fill:var(--soft); font-size:12px; }
svg text.cell { text-anchor:middle; font-size:10px; }
.grid { stroke:var(--rule); stroke-width:.7; fill:none; } .base { stroke:var(--soft); stroke-width:1; }
.zero { stroke:var(--ink); stroke-width:1.2; } .front { stroke:var(--soft); stroke-width:1.5; stroke-dasharray:5 4; fill:none; }
.line { fill:none; stroke-width:1.7; stroke-linejoin:round; } .band { opacity:.14; stroke:none; }
.whisker { stroke-width:1.8; opacity:.6; fill:none; }
.c0 { --c:var(--c0); } .c1 { --c:var(--c1); } .c2 { --c:var(--c2); } .c3 { --c:var(--c3); } .c4 { --c:var(--c4); }
.c5 { --c:var(--c5); } .c6 { --c:var(--c6); } .c7 { --c:var(--c7); }
.mark, .band { fill:var(--c); } .line, .whisker { stroke:var(--c); }
.leader { fill:none; stroke-width:.8; opacity:.7; stroke:var(--soft); } .mark { stroke:var(--paper); stroke-width:.6; }
.hole { fill:none; stroke:var(--rule); stroke-width:.7; } .live { fill:none; pointer-events:none; stroke:var(--c1); stroke-width:1.6; }
svg:has(.series:hover) .series:not(:hover) { opacity:.22; }
.legend { display:flex; flex-wrap:wrap; gap:2px 16px; font-size:.9rem; max-width:none; } .legend span { overflow-wrap:anywhere; }
.legend svg { vertical-align:-2px; margin-right:4px; }
.scroll { overflow-x:auto; margin:8px 0; border:1px solid var(--rule); border-radius:4px; }
table { border-collapse:collapse; font-size:.88rem; width:100%; }
caption { text-align:left; max-width:90vw; padding:6px 10px; color:var(--soft); }
th, td { padding:5px 10px; text-align:right; white-space:nowrap; border-top:1px solid var(--rule); }
thead th { background:var(--wash); border-top:0; vertical-align:bottom; font-weight:600; }
th:first-child, td:first-child { text-align:left; }
th:first-child { position:sticky; left:0; background:var(--wash); min-width:10rem; max-width:17rem; white-space:normal;
  overflow-wrap:anywhere;
  font-weight:600; }
td small, th small { color:var(--soft); font-weight:400; display:block; font-size:.78rem; }
td.best { color:var(--good); font-weight:700; }
tr.baseline th:first-child::after { content:" (baseline)"; color:var(--soft); font-weight:400; }
th[role=button] { cursor:pointer; } th[aria-sort=ascending]::after { content:" ▲"; }
th[aria-sort=descending]::after { content:" ▼"; }
details { margin:8px 0; } summary { cursor:pointer; color:var(--soft); }
pre { background:var(--wash); padding:10px 12px; overflow-x:auto; white-space:pre-wrap; overflow-wrap:anywhere; font-size:.85rem;
  border-radius:4px; }
dl { display:grid; grid-template-columns:max-content 1fr; gap:4px 18px; margin:8px 0; } dt { color:var(--soft); }
dd { margin:0; overflow-wrap:anywhere; }
@media (max-width:520px) { body { padding:16px 12px 40px; } th:first-child { min-width:7.5rem; max-width:8.5rem; }
dl { grid-template-columns:1fr; gap:0; } dd { margin-bottom:8px; } }
@media print { .scroll { overflow:visible; } }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const key = (row, n) => {
    const cell = row.cells[n];
    return "value" in cell.dataset ? parseFloat(cell.dataset.value) : cell.textContent;
  };
  heads.forEach((head, n) => {
    head.tabIndex = 0; head.setAttribute("role", "button"); head.title = "sort by this column";
    const sort = () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const x = key(a, n), y = key(b, n);
        if (x !== x || y !== y) return (x !== x) - (y !== y);  // no number: last, whichever way
        return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
      });
      table.tBodies[0].append(...rows);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); } });
  });
}
"""
