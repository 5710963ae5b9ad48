// Pareto plot, significance matrix and heat map: Observable Plot, coloured by the variables of page.css so that
// they follow dark mode.
"use strict";

(() => {
  const { board, el } = Zoo;
  const byId = (id) => document.getElementById(id);
  const style = { fontSize: "12px", background: "transparent", color: "var(--text)", fontFamily: "inherit" };

  const place = (id, plot) => byId(id).replaceChildren(plot);
  const nothing = (id, text) => byId(id).replaceChildren(el("p", { class: "quiet" }, text));
  const warnings = {
    synthetic: " Synthetic labels: pseudo-MOS from a rule, no human scores.",
    order: " Degradation response: pairs of neighbouring levels in their order; .5 is chance, and nobody rated these images.",
  };
  const warn = (column) => warnings[column.labels] || "";
  const measure = (column) => (column.labels === "order" ? "Ordered pairs" : "SRCC");
  const short = (text, most = 26) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
  const rowsOf = (index) =>
    board.rows.map((row, i) => ({ row, i, cell: row.cells[index] })).filter((d) => d.cell && d.cell.status === "ok");

  // ---- quality against cost ----

  const axes = {
    latency: { label: "Latency p50 (ms, one image)", format: ",~f", get: (d) => d.cell.cost?.latency_p50_ms ?? null },
    // A log axis has no zero: what has no parameters stands at one.
    parameters: { label: "Parameters used (none: at 1)", format: "~s", least: 1, get: (d) => d.cell.cost?.parameters ?? d.row.parameters },
  };

  const atLeast = (value, least) => (value === null || least === undefined ? value : Math.max(value, least));

  // Who is not beaten in both quality and cost by someone else.
  const front = (points) =>
    points.filter((p) => !points.some((q) => q !== p && q.x <= p.x && q.y >= p.y && (q.x < p.x || q.y > p.y)));

  Zoo.drawPareto = () => {
    const index = Number(document.querySelector('[data-dataset="pareto"]').value);
    const axis = axes[byId("pareto-x").value];
    const what = measure(board.columns[index]);
    const points = rowsOf(index)
      .filter((d) => d.cell.counts)
      .map((d) => ({ ...d, x: atLeast(axis.get(d), axis.least), y: d.cell.ranking, interval: d.cell.response?.ordered || d.cell.metrics.srcc }));
    const shown = points.filter((p) => p.x !== null && p.x > 0 && p.y !== null);
    if (!shown.length) {
      byId("pareto-caption").textContent = "";
      return nothing("pareto-plot", "No model of this data set has a measured cost of this kind.");
    }
    const best = front(shown).sort((a, b) => a.x - b.x);
    const width = byId("pareto-plot").clientWidth || 800;
    const title = (p) => [
      p.row.label, p.cell.failed ? `${what} ${Zoo.number(p.y)}, ${p.cell.failed} failed and counted as worst` : `${what} ${Zoo.number(p.y)} ${Zoo.interval(p.interval)}`,
      `${Zoo.milliseconds(p.cell.cost?.latency_p50_ms)} ms, ${Zoo.count(axes.parameters.get(p))} parameters`,
    ].join("\n");
    place("pareto-plot", Plot.plot({
      width, height: Math.min(460, Math.max(300, width * 0.55)), style, marginLeft: 48, marginRight: 24, marginBottom: 42,
      ariaLabel: `${what} against cost`,
      x: { type: "log", label: `${axis.label} →`, grid: true, nice: true, ticks: width < 500 ? 3 : 6, tickFormat: axis.format },
      y: { label: `↑ ${what}`, grid: true, nice: true },
      symbol: { domain: ["NR", "FR"], range: ["circle", "square"], legend: false },
      marks: [
        Plot.line(best, { x: "x", y: "y", curve: "step-after", stroke: "var(--accent)", strokeOpacity: 0.5 }),
        // The interval is of the images that have a score: it belongs to no point that counts failures as worst.
        Plot.ruleX(shown.filter((p) => !p.cell.failed), { x: "x", y1: (p) => p.interval[1], y2: (p) => p.interval[2], stroke: "var(--quiet)", strokeOpacity: 0.6 }),
        Plot.dot([...shown.filter((p) => !best.includes(p)), ...best], { x: "x", y: "y", r: 5, symbol: (p) => p.row.kind, fill: (p) => (best.includes(p) ? "var(--accent)" : "var(--soft)"), stroke: "var(--page)" }),
        Plot.text(best, { x: "x", y: "y", text: (p) => short(p.row.label, 20), dy: -10, fill: "var(--text)", stroke: "var(--page)", strokeWidth: 3, textAnchor: "middle" }),
        Plot.tip(shown, Plot.pointer({ x: "x", y: "y", title })),
      ],
    }));
    const missing = points.length - shown.length;
    byId("pareto-caption").textContent =
      `Nobody is both cheaper and better than: ${best.map((p) => p.row.label).join(", ")}. ` +
      "Circles: no-reference; squares: full-reference; lines: 95 % intervals, of models without failures." +
      (missing ? ` ${missing} models without this cost are not shown.` : "") + warn(board.columns[index]);
  };

  // ---- significance ----

  const outcomes = [["better", "▲", "row is better"], ["worse", "▼", "row is worse"], ["same", "·", "not told apart"]];

  Zoo.drawSignificance = () => {
    const index = Number(document.querySelector('[data-dataset="significance"]').value);
    const column = board.columns[index];
    if (!column.pairs.length) {
      byId("significance-caption").textContent = "";
      return nothing("significance-plot", `No comparison: ${column.note}.`);
    }
    const compared = new Set(column.pairs.flatMap(([a, b]) => [a, b])); // of very many models the best
    const order = rowsOf(index).filter((d) => compared.has(d.i)).sort((a, b) => b.cell.ranking - a.cell.ranking);
    const names = order.map((d) => d.row.label);
    const label = Object.fromEntries(order.map((d) => [d.i, d.row.label]));
    const outcome = (difference, p) => (p === null || p >= board.alpha ? "same" : difference > 0 ? "better" : "worse");
    const cells = column.pairs.flatMap(([a, b, difference, low, high, p]) => [
      { row: label[a], column: label[b], difference, low, high, p, outcome: outcome(difference, p) },
      { row: label[b], column: label[a], difference: -difference, low: -high, high: -low, p, outcome: outcome(-difference, p) },
    ]);
    const [side, left] = [names.length > 25 ? 18 : 30, 175];
    const sign = Object.fromEntries(outcomes.map(([key, mark]) => [key, mark]));
    place("significance-plot", Plot.plot({
      width: left + side * names.length + 70, height: 150 + side * names.length, style,
      marginLeft: left, marginTop: 140, marginBottom: 10, marginRight: 70,
      ariaLabel: "Which models differ significantly",
      x: { domain: names, axis: "top", label: null, tickRotate: -60, tickFormat: (t) => short(t, 18), tickSize: 0 },
      y: { domain: names, label: null, tickFormat: (t) => short(t, 22), tickSize: 0 },
      color: { domain: outcomes.map(([key]) => key), range: ["var(--better)", "var(--worse)", "var(--same)"] },
      marks: [
        Plot.cell(cells, { x: "column", y: "row", fill: "outcome", inset: 1 }),
        Plot.text(cells, { x: "column", y: "row", text: (d) => sign[d.outcome], fill: (d) => (d.outcome === "same" ? "var(--quiet)" : "#fff"), pointerEvents: "none" }),
        Plot.tip(cells, Plot.pointer({ x: "column", y: "row", maxRadius: side, title: (d) =>
          `${d.row}\nminus ${d.column}\n${Zoo.number(d.difference)} [${Zoo.number(d.low)}, ${Zoo.number(d.high)}]\n` +
          `p = ${d.p === null ? "–" : d.p} (Holm): ${outcomes.find(([key]) => key === d.outcome)[2]}` })),
      ],
    }));
    byId("significance-caption").textContent =
      `Row against column on ${Zoo.columnName(column)}, best first: ${outcomes.map(([, m, t]) => `${m} ${t}`).join(", ")} ` +
      `(p < ${board.alpha} after Holm’s correction over the ${column.pairs.length} pairs of ${names.length} models).` + warn(column);
  };

  // ---- by distortion ----

  Zoo.drawDistortions = () => {
    const index = Number(document.querySelector('[data-dataset="distortions"]').value);
    const column = board.columns[index];
    const order = rowsOf(index).filter((d) => Object.keys(d.cell.by_distortion).length)
      .sort((a, b) => (b.cell.ranking ?? -2) - (a.cell.ranking ?? -2)).slice(0, board.compared);
    if (!order.length) {
      byId("distortions-caption").textContent = "";
      return nothing("distortions-plot", "The distortions of this data set’s images are not known.");
    }
    const cells = order.flatMap((d) => Object.entries(d.cell.by_distortion).map(([name, [n, srcc]]) => ({
      model: d.row.label, name, n, srcc,
    })));
    const what = measure(column);
    const [worst, middle] = column.labels === "order" ? [0, 0.5] : [-1, 0];
    const classes = [...new Set(cells.map((c) => c.name))].sort();
    const [wide, high, left] = [34, 24, 175];
    place("distortions-plot", Plot.plot({
      width: left + wide * classes.length + 70, height: 150 + high * order.length, style,
      marginLeft: left, marginTop: 140, marginBottom: 10, marginRight: 70,
      ariaLabel: `${what} inside each distortion`,
      x: { domain: classes, axis: "top", label: null, tickRotate: -60, tickFormat: (t) => short(t.replaceAll("_", " "), 20), tickSize: 0 },
      y: { domain: order.map((d) => d.row.label), label: null, tickFormat: (t) => short(t, 22), tickSize: 0 },
      color: { type: "diverging", scheme: "RdBu", domain: [worst, 1], pivot: middle, unknown: "var(--same)" },
      marks: [
        Plot.cell(cells, { x: "name", y: "model", fill: "srcc", inset: 0.5 }),
        Plot.text(cells, { x: "name", y: "model", text: (d) => (d.srcc === null ? "–" : Zoo.number(d.srcc, 2).replace("0.", ".")),
          fill: (d) => (d.srcc !== null && Math.abs(d.srcc - middle) > 0.6 * (1 - middle) ? "#fff" : d.srcc === null ? "var(--on-cell)" : "#111"), fontSize: 10, pointerEvents: "none" }),
        Plot.tip(cells, Plot.pointer({ x: "name", y: "model", maxRadius: wide, title: (d) =>
          `${d.model}\n${d.name}\n${what} ${Zoo.number(d.srcc)}, n = ${d.n}` })),
      ],
    }));
    byId("distortions-caption").textContent =
      `${what} among the images of one distortion: red runs backwards, blue agrees; few images make it uncertain, ` +
      `so the tip says how many. Best model first, ${board.compared} at most.${warn(column)}`;
  };

  Zoo.fill(byId("pareto-x"), Object.entries(axes).map(([key, axis]) => [key, axis.label]));
})();
