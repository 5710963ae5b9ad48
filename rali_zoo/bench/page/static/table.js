// The measured table: Tabulator with our cells, filters and details.
"use strict";

(() => {
  const { board, el } = Zoo;
  const byId = (id) => document.getElementById(id);
  const phone = window.matchMedia("(max-width: 640px)");
  let metric = "srcc";

  // Cells without a number stay last, whichever way a column is sorted.
  const last = (get) => (a, b, rowA, rowB, column, direction) => {
    const [x, y] = [get(rowA.getData()), get(rowB.getData())];
    if (x === null || x === undefined) return y === null || y === undefined ? 0 : direction === "asc" ? 1 : -1;
    if (y === null || y === undefined) return direction === "asc" ? -1 : 1;
    return x - y;
  };

  const costOf = (row, key) => {
    const cell = row.cells.find((c) => c && c.cost && c.cost[key] !== null);
    return cell ? cell.cost[key] : null;
  };
  const parametersOf = (row) => costOf(row, "parameters") ?? row.parameters;

  const showCell = (column, index) => (shown) => {
    const cell = shown.getData().cells[index];
    if (!cell) return el("span", { class: "quiet" }, "not run");
    if (cell.status !== "ok") {
      return el("div", { class: "cell" }, el("span", { class: "problem" }, cell.status), el("small", { class: "reason" }, cell.reason));
    }
    const leakage = Zoo.leakage(cell);
    const mark = leakage ? el("sup", { class: "mark", title: leakage.text }, leakage.mark) : null;
    const estimate = cell.response ? cell.response.ordered : cell.metrics[metric];
    const best = metric === "srcc" && cell.best;
    const worst = metric === "srcc" && !cell.response ? ` → ${Zoo.number(cell.ranking)}` : "";
    const failed = cell.failed ? el("span", { class: "failed" }, `${cell.failed} failed${worst}`) : null;
    return el(
      "div",
      { class: cell.counts ? "cell" : "cell leaked" },
      el(best ? "strong" : "span", { class: best ? "best" : "value" }, Zoo.number(estimate[0]), mark),
      el("small", {}, Zoo.interval(estimate)),
      failed
    );
  };

  const tip = (column, index) => (event, shown) => {
    const row = shown.getData();
    return el("div", { class: "tip" }, el("strong", {}, row.label), Zoo.factList(Zoo.facts(row.cells[index], column)));
  };

  const showModel = (shown) => {
    const row = shown.getData();
    return el("button", { class: "model", type: "button", onclick: () => details(row) }, ...Zoo.breakable(row.label));
  };

  const details = (row) => {
    const sets = row.training_sets === null ? "not known" : row.training_sets.join(", ") || "none";
    const facts = [
      ["reference", row.ref], ["revision", row.revision], ["kind", row.kind === "FR" ? "full-reference" : "no-reference"],
      ["source", row.source], ["licence", row.licence || "not stated"], ["trained on", sets],
      ["scores", row.native_scale ? "on a scale of its own" : "in MOS units"],
      ["parameters used", parametersOf(row) === null ? "not counted" : parametersOf(row).toLocaleString("en")],
    ];
    for (const [kind, average] of Object.entries(row.averages)) {
      if (average.pooled !== null) facts.push([`pooled SRCC, ${board.labels[kind]}`, Zoo.number(average.pooled)]);
    }
    byId("details-body").replaceChildren(
      el("h2", { id: "details-title" }, row.label),
      Zoo.factList(facts),
      ...board.columns.map((column, i) => Zoo.factList([...Zoo.facts(row.cells[i], column), ...Zoo.moreFacts(row.cells[i])]))
    );
    byId("details").showModal();
  };

  const averageColumn = (kind) => ({
    title: `Mean, ${board.labels[kind]}`,
    field: `mean_${kind}`,
    hozAlign: "right",
    headerSortStartingDir: "desc",
    minWidth: 108,
    sorter: last((row) => row.averages[kind].mean),
    titleFormatter: () => el("span", {}, kind === "order" ? "Mean share" : "Mean SRCC", el("br"), el("small", {}, board.labels[kind])),
    formatter: (shown) => {
      const { mean, weighted, sets, of } = shown.getData().averages[kind];
      const below = mean === null ? `${sets} of ${of} sets` : `by n ${Zoo.number(weighted)}`;
      return el("div", { class: "cell" }, el("span", {}, Zoo.number(mean)), el("small", {}, below));
    },
  });

  const datasetColumn = (column, i) => ({
    title: Zoo.columnName(column),
    field: `set_${i}`,
    hozAlign: "right",
    headerSortStartingDir: "desc",
    minWidth: 140,
    sorter: last((row) => Zoo.value(row.cells[i], metric)),
    titleFormatter: () =>
      el("span", {}, ...Zoo.breakable(column.ref), el("br"), el("small", {}, `${column.split}, n = ${column.n} `), Zoo.tag(column)),
    formatter: showCell(column, i),
    tooltip: tip(column, i),
  });

  const costColumn = (title, unit, field, get, show) => ({
    title,
    field,
    hozAlign: "right",
    headerSortStartingDir: "asc",
    minWidth: 122,
    sorter: last(get),
    titleFormatter: () => el("span", {}, title, el("br"), el("small", {}, unit)),
    formatter: (shown) => el("span", {}, show(get(shown.getData()))),
  });

  const columns = [
    // On a phone there is room for a name and two numbers; the list of columns brings the others back.
    ...(phone.matches ? [] : [{ title: "#", field: "place", width: 58, hozAlign: "right", frozen: true, sorter: "number" }]),
    { title: "Model", field: "label", frozen: true, minWidth: phone.matches ? 124 : 210, widthGrow: 2, formatter: showModel },
    { title: "Kind", field: "kind", width: 80, visible: !phone.matches },
    { title: "Source", field: "source", minWidth: 106, visible: !phone.matches },
    // One degradation column is its own mean.
    ...Object.keys(board.labels).filter((k) => k !== "order" || board.columns.filter((c) => c.labels === k).length > 1).map(averageColumn),
    ...board.columns.map(datasetColumn),
    costColumn("Parameters", "used", "parameters", parametersOf, Zoo.count),
    costColumn("Latency", "p50, ms", "latency", (row) => costOf(row, "latency_p50_ms"), Zoo.milliseconds),
  ];

  const table = new Tabulator("#board", {
    // Copies: Tabulator writes into the rows it is given.
    data: board.rows.map((row, i) => ({ ...row, place: i + 1 })),
    columns,
    layout: "fitColumns",
    // With a height Tabulator makes the rows in view alone; a few rows need none.
    ...(board.rows.length > 100 ? { height: "85vh" } : {}),
    movableColumns: false,
    resizableColumns: false,
    columnHeaderSortMulti: false,
    tooltipDelay: 150,
    placeholder: "No model fits these filters.",
  });
  Zoo.table = table;

  const filter = () => {
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [kind, source] = [byId("kind").value, byId("source").value];
    table.setFilter((row) => {
      const text = [row.label, row.ref, row.source, row.kind, ...(row.training_sets || [])].join(" ").toLowerCase();
      return (!kind || row.kind === kind) && (!source || row.source === source) && words.every((w) => text.includes(w));
    });
  };

  const options = (key, all) => [["", all], ...[...new Set(board.rows.map((r) => r[key]))].sort().map((v) => [v, v])];
  const kindNames = { NR: "no-reference", FR: "full-reference" };
  Zoo.fill(byId("kind"), options("kind", "all").map(([v, t]) => [v, kindNames[t] || t]));
  Zoo.fill(byId("source"), options("source", "all"));
  Zoo.fill(byId("metric"), Object.entries(board.metrics));
  const sortable = columns.filter((c) => c.field.startsWith("mean_") || c.field.startsWith("set_") || c.headerSortStartingDir);
  Zoo.fill(byId("sort"), [["place", "place on the board"], ["label", "name"], ...sortable.map((c) => [c.field, c.title])]);

  const sort = () => {
    const field = byId("sort").value;
    const column = columns.find((c) => c.field === field);
    const lowest = field.startsWith("set_") && board.lower_is_better.includes(metric);
    if (field === "place") return table.clearSort(); // the order of the data
    table.setSort(field, lowest ? "asc" : column.headerSortStartingDir || "asc");
  };

  byId("column-list").replaceChildren(
    ...columns.filter((c) => !["place", "label"].includes(c.field)).map((c) => {
      const toggle = (event) => table[event.target.checked ? "showColumn" : "hideColumn"](c.field);
      return el("label", {}, el("input", { type: "checkbox", checked: c.visible !== false, onchange: toggle }), ` ${c.title}`);
    })
  );
  for (const id of ["search", "kind", "source"]) byId(id).addEventListener("input", filter);
  byId("sort").addEventListener("input", sort);
  byId("metric").addEventListener("input", (event) => {
    metric = event.target.value;
    table.redraw(true);
    if (byId("sort").value.startsWith("set_")) sort();
  });
  table.on("dataFiltered", (filters, rows) => {
    byId("count").textContent = `${rows.length} of ${board.rows.length} models`;
  });
  // Tabulator's headings answer to the mouse only.
  table.on("tableBuilt", () => {
    for (const heading of document.querySelectorAll("#board .tabulator-col.tabulator-sortable")) {
      heading.tabIndex = 0;
      heading.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        heading.querySelector(".tabulator-col-content").click();
      });
    }
  });
})();
