// gMAD pairs, reported tables, legends, and what redraws when.
"use strict";

(() => {
  const { board, el } = Zoo;
  const byId = (id) => document.getElementById(id);

  // ---- gMAD ----

  const chosen = () => board.columns[Number(document.querySelector('[data-dataset="gmad"]').value)];
  const names = (indices) => [...new Set(indices)].sort((a, b) => a - b).map((i) => [i, board.rows[i].label]);

  const drawDefenders = () => {
    const column = chosen();
    Zoo.fill(byId("gmad-defender"), names(column.gmad.map((p) => p.defender)));
    drawAttackers();
  };
  const drawAttackers = () => {
    const defender = Number(byId("gmad-defender").value);
    const kept = byId("gmad-attacker").value;
    const options = names(chosen().gmad.filter((p) => p.defender === defender).map((p) => p.attacker));
    Zoo.fill(byId("gmad-attacker"), options);
    if (options.some(([i]) => String(i) === kept)) byId("gmad-attacker").value = kept;
    drawPairs();
  };

  const image = (column, id, mos, says) => {
    const known = (Zoo.images[column.key] || {})[id];
    const image = known
      ? el("img", { src: known.file, alt: `Image ${id}, which the attacker finds ${says}` })
      : el("div", { class: "no-image" }, id);
    const kind = column.labels === "synthetic" ? "pseudo-MOS (synthetic)" : "MOS";
    return el("figure", {}, image, el("figcaption", {}, `attacker: ${says}; ${kind} ${Zoo.number(mos, 2)}`,
      known ? el("small", {}, known.credit) : null));
  };

  const drawPairs = () => {
    const column = chosen();
    if (!column.gmad.length) {
      return byId("gmad-pairs").replaceChildren(
        el("p", { class: "quiet" }, "No pairs: fewer than two models with published scores on this data set, or too few images."));
    }
    const [defender, attacker] = [Number(byId("gmad-defender").value), Number(byId("gmad-attacker").value)];
    const pairs = column.gmad.filter((p) => p.defender === defender && p.attacker === attacker);
    const levels = ["Both bad", "Both good"];
    byId("gmad-pairs").replaceChildren(...pairs.map((pair) =>
      el("div", { class: "pair" },
        el("h3", {}, `${levels[pair.level]}, says ${board.rows[defender].label}`),
        el("div", { class: "images" },
          image(column, pair.better, pair.mos[0], "better"), image(column, pair.worse, pair.mos[1], "worse")))));
  };

  // ---- reported by authors ----

  const shown = (values, best) =>
    el("td", {}, ...(values || []).flatMap((value, i) => [
      i ? " / " : "", el(best && value !== null && value === best[i] ? "strong" : "span", {}, Zoo.number(value))]),
      values ? "" : "–");

  const reportedTable = (table) => {
    const several = table.datasets.length > 1;
    const head = ["Model", ...table.datasets, ...(several ? ["mean"] : [])];
    const title = table.url ? el("a", { href: table.url }, table.source) : table.source;
    return el("div", { class: "reported" },
      el("h3", {}, table.title),
      el("p", {}, "Source: ", title, ". ", table.read_from ? `Read from ${table.read_from}. ` : "", table.protocol),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": table.title },
        el("table", {},
          el("caption", {}, table.metrics.join(" / ") + ", as reported"),
          el("thead", {}, el("tr", {}, ...head.map((h) => el("th", { scope: "col" }, h)))),
          el("tbody", {}, ...table.rows.map((row) => el("tr", {},
            el("th", { scope: "row" }, row.model, row.note ? el("small", {}, row.note) : null),
            ...table.datasets.map((d) => shown(row.values[d], table.best[d])),
            several ? shown(row.average, null) : null))))));
  };

  const reportedCells = () => {
    const rows = board.reported_cells;
    if (!rows.length) return [];
    return [el("div", { class: "reported" }, el("h3", {}, "From submitted results files"),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Submitted results" }, el("table", {},
        el("thead", {}, el("tr", {}, ...["Model", "Data set", ...Object.values(board.metrics), "Source"].map((h) => el("th", { scope: "col" }, h)))),
        el("tbody", {}, ...rows.map((r) => el("tr", {}, el("th", { scope: "row" }, r.model), el("td", {}, r.dataset),
          ...Object.keys(board.metrics).map((key) => el("td", {}, Zoo.number(r.metrics[key][0]))), el("td", { class: "note" }, r.ref)))))))];
  };

  // ---- all together ----

  const draw = { pareto: Zoo.drawPareto, significance: Zoo.drawSignificance, distortions: Zoo.drawDistortions, gmad: drawDefenders };
  // Each section begins with the first data set that has something to show.
  const has = {
    pareto: (c, i) => board.rows.some((r) => r.cells[i] && r.cells[i].cost),
    significance: (c) => c.pairs.length,
    distortions: (c, i) => board.rows.some((r) => r.cells[i] && Object.keys(r.cells[i].by_distortion).length),
    gmad: (c) => c.gmad.length && (Zoo.images[c.key] || c.labels === "human"),
  };
  const label = (c) => Zoo.columnName(c) + (c.labels === "synthetic" ? " (synthetic)" : "");
  for (const select of document.querySelectorAll("[data-dataset]")) {
    const what = select.dataset.dataset;
    const first = board.columns.findIndex(has[what]);
    Zoo.fill(select, board.columns.map((c, i) => [i, label(c)]), Math.max(0, first));
    // Scores that are not published leave nothing to compare: no section rather than an empty one.
    select.closest("section").hidden = document.querySelector(`nav a[href="#${what}"]`).hidden = first < 0;
    select.addEventListener("input", draw[what]);
  }
  byId("pareto-x").addEventListener("input", Zoo.drawPareto);
  byId("gmad-defender").addEventListener("input", drawAttackers);
  byId("gmad-attacker").addEventListener("input", drawPairs);

  byId("synthetic-note").hidden = !board.columns.some((c) => c.labels === "synthetic");
  const used = new Set(board.rows.flatMap((r) => r.cells.filter(Boolean).map((c) => c.leakage)));
  byId("marks").replaceChildren(...Object.entries(board.marks).filter(([flag]) => used.has(flag))
    .map(([, { mark, meaning }]) => el("li", {}, `${mark} ${meaning}`)));
  byId("reported-tables").replaceChildren(...board.reported.map(reportedTable), ...reportedCells());
  byId("reported").hidden = !board.reported.length && !board.reported_cells.length;

  Object.values(draw).forEach((make) => make());
  let waiting = 0;
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return; // phones resize when their address bar hides
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(Zoo.drawPareto, 150);
  });
})();
