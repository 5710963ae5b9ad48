// What the other scripts share: elements made of text (never of markup, since names come from submitted files),
// numbers as they are shown, and the board by position.
"use strict";

const Zoo = {};

Zoo.board = window.BOARD;
Zoo.images = window.IMAGES || {};

Zoo.el = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};

Zoo.number = (value, digits = 3) => {
  if (value === null || value === undefined) return "–";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text;
};

Zoo.count = (value) => {
  if (value === null || value === undefined) return "–";
  for (const [size, unit] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= size) return (value / size).toPrecision(3) + " " + unit;
  }
  return String(value);
};

Zoo.milliseconds = (value) => {
  if (value === null || value === undefined) return "–";
  return value >= 100 ? value.toFixed(0) : value.toPrecision(2);
};

Zoo.interval = ([, low, high], digits = 3) =>
  low === null ? "" : `[${Zoo.number(low, digits)}, ${Zoo.number(high, digits)}]`;

Zoo.columnName = (column) =>
  `${column.ref} ${column.split}` + (column.limit === null ? "" : ` (${column.limit} rows)`);

// Names with places where a narrow column may break them.
Zoo.breakable = (text) => text.split(/(?<=[:_/.-])/).flatMap((part, i) => (i ? [Zoo.el("wbr"), part] : [part]));

Zoo.tag = (column) => {
  const text = { synthetic: "synthetic", aesthetics: "aesthetics", order: "degradation response" }[column.labels];
  return text ? Zoo.el("span", { class: "tag" }, text) : null;
};

// The number a cell is sorted by: of SRCC the one with failed images in the worst place.
Zoo.value = (cell, metric) => {
  if (!cell || cell.status !== "ok") return null;
  // A degradation column has one number, whichever statistic of agreement is chosen.
  return metric === "srcc" || cell.response ? cell.ranking : cell.metrics[metric][0];
};

Zoo.fill = (select, options, chosen) => {
  select.replaceChildren(...options.map(([value, text]) => Zoo.el("option", { value }, text)));
  if (chosen !== undefined) select.value = chosen;
};

// One mark a flag, and why, for tooltips and details.
Zoo.leakage = (cell) => {
  const mark = Zoo.board.marks[cell.leakage];
  return mark ? { mark: mark.mark, text: mark.meaning + (cell.leakage_why ? ` (${cell.leakage_why})` : "") } : null;
};

Zoo.facts = (cell, column) => {
  const rows = [["data set", Zoo.columnName(column) + (column.labels === "synthetic" ? ", synthetic labels" : "")]];
  if (!cell) return [...rows, ["status", "not run"]];
  if (cell.status !== "ok") rows.push(["status", `${cell.status}: ${cell.reason}`]);
  for (const [key, name] of Object.entries(Zoo.board.metrics)) {
    const estimate = cell.metrics[key];
    if (estimate[0] !== null) rows.push([name, `${Zoo.number(estimate[0])} ${Zoo.interval(estimate)}`]);
  }
  for (const [name, [value, low, high, n]] of Object.entries(cell.response || {})) {
    rows.push([name, `${Zoo.number(value)} ${Zoo.interval([value, low, high])}, n = ${n}`]);
  }
  if (cell.failed && !cell.response) rows.push(["SRCC, failures worst", Zoo.number(cell.ranking)]);
  rows.push(["n", `${cell.n} of ${column.n}, ${cell.failed} failed`]);
  const { more } = cell;
  if (more.distinct) {
    rows.push(["distinct scores", `${more.distinct}` + (more.ties === null ? "" : `, ${(100 * more.ties).toFixed(1)} % ties`)]);
  }
  const leakage = Zoo.leakage(cell);
  if (leakage) rows.push(["training data", leakage.text]);
  if (cell.cost) {
    const { latency_p50_ms: p50, latency_p95_ms: p95 } = cell.cost;
    if (p50 !== null) rows.push(["latency p50, p95", `${Zoo.milliseconds(p50)}, ${Zoo.milliseconds(p95)} ms`]);
    if (cell.cost.peak_memory_mb !== null) rows.push(["peak memory", `${cell.cost.peak_memory_mb.toFixed(0)} MB`]);
    rows.push(["measured on", cell.machine]);
  }
  for (const [id, error] of cell.failures.slice(0, 3)) rows.push([`failed: ${id}`, error]);
  return rows;
};

// What is told in the details only.
Zoo.moreFacts = (cell) => {
  if (!cell || cell.status !== "ok") return [];
  const names = {
    ksplit_median: "SRCC, median of 10 random fifths", d_test: "D-test", l_test: "L-test",
    p_test: "P-test", krasula_auc_different: "Krasula, different or similar (AUC)", krasula_auc_better: "Krasula, better or worse (AUC)",
  };
  return Object.entries(names).filter(([key]) => cell.more[key] !== null).map(([key, name]) => [name, Zoo.number(cell.more[key])]);
};

Zoo.factList = (rows) =>
  Zoo.el("dl", { class: "facts" }, ...rows.flatMap(([name, value]) => [Zoo.el("dt", {}, name), Zoo.el("dd", {}, value)]));
