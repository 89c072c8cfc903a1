"use strict";
(() => {
  const { facts, charts } = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const choice = { dataset: 0, measure: facts.default_measure, statistic: "calibrated", source: 0, target: 1 };
  const MISSING = -32768;

  // Matrices come as base64 of int16; unpacked once, kept.
  const unpacked = new Map();
  const matrix = (packed) => {
    if (!unpacked.has(packed)) {
      const bytes = Uint8Array.from(atob(packed.steps), (letter) => letter.charCodeAt(0));
      const view = new DataView(bytes.buffer);
      unpacked.set(packed, (row, column) => {
        const step = view.getInt16(2 * (row * packed.columns + column), true);
        return step === MISSING ? NaN : step * packed.unit;
      });
    }
    return unpacked.get(packed);
  };
  const text = (value, digits = 2) =>
    Number.isNaN(value) ? "–" : value.toFixed(digits).replace(/^(-?)0\./, "$1.").replace(/^-(\.?0*)$/, "$1");

  const option = (label, value) => Object.assign(document.createElement("option"), { textContent: label, value });
  const fill = (id, labels, value) => {
    byId(id).replaceChildren(...labels.map(([label, key]) => option(label, key)));
    byId(id).value = value;
  };
  const table = (corner, rows, columns, cell) => {
    const made = document.createElement("table");
    const add = (row, kind, content, scope) => {
      const element = document.createElement(kind);
      element.textContent = content;
      if (scope) element.scope = scope; else element.className = "number";
      row.append(element);
    };
    const head = made.createTHead().insertRow();
    add(head, "th", corner, "col");
    for (const column of columns) add(head, "th", column, "col");
    const body = made.createTBody();
    rows.forEach((name, r) => {
      const row = body.insertRow();
      add(row, "th", name, "row");
      columns.forEach((_, c) => add(row, "td", cell(r, c)));
    });
    return made;
  };

  const view = () => {
    const measured = facts.views[choice.dataset][choice.measure];
    return { ...measured, ...(measured.views[choice.statistic] ?? Object.values(measured.views)[0]) };
  };
  const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();

  // One heat map: names along both sides, a value for every cell, frames and a tree where there are any.
  const draw = (plot, drawn) => {
    const name = plot.name;
    const { rows, columns, value, chance, p, frames = [], tree } = drawn;
    const size = Math.max(12, Math.min(46, Math.floor(640 / Math.max(rows.length, columns.length))));
    const data = { x: [], y: [], value: [], label: [], ink: [], source: [], target: [], chance: [], p: [] };
    let low = 0, high = 1;
    rows.forEach((_, r) => columns.forEach((__, c) => { const v = value(r, c); if (v > high) high = v; }));
    rows.forEach((source, r) => columns.forEach((target, c) => {
      const v = value(r, c);
      data.x.push(c + 0.5); data.y.push(r + 0.5); data.value.push(v); data.label.push(text(v));
      // Yellow cells take dark ink, blue ones light ink; a cell without a value is as dark as the page.
      data.ink.push(Number.isNaN(v) ? ink() : (v - low) / (high - low) > 0.62 ? "#10151a" : "#ffffff");
      data.source.push(source); data.target.push(target);
      data.chance.push(chance ? text(chance(r, c)) : "–"); data.p.push(p ? text(p(r, c), 4) : "–");
    }));
    const part = (suffix) => find(plot, `${name}-${suffix}`);
    part("cells").data = data;
    part("marks").data = {
      x: frames.map(([, c]) => c + 0.5), y: frames.map(([r]) => r + 0.5), ink: frames.map(() => "#ff5a36"),
    };
    const room = tree && tree.xs.length ? Math.max(2, columns.length * 0.25) : 0;
    part("tree").data = tree
      ? { xs: tree.xs.map((line) => line.map((x) => columns.length + 0.15 + x * (room - 0.3))), ys: tree.ys }
      : { xs: [], ys: [] };
    part("colours").high = high;
    plot.x_range.setv({ start: 0, end: columns.length + room });
    plot.y_range.setv({ start: rows.length, end: 0 });
    for (const [side, names] of [["x", columns], ["y", rows]]) {
      const axis = part(side);
      axis.ticker.ticks = names.map((_, i) => i + 0.5);
      axis.major_label_overrides = new Map(names.map((label, i) => [i + 0.5, shortened(label)]));
      axis.major_label_text_color = ink();
    }
    plot.frame_width = Math.round(size * (columns.length + room));
    plot.frame_height = size * rows.length;
    part("labels").visible = size >= 28;
  };
  const shortened = (name) => (name.length > 28 ? `${name.slice(0, 13)}…${name.slice(-13)}` : name);
  const find = (plot, name) => {
    for (const model of plot.references()) if (model.name === name) return model;
    throw new Error(`the chart has no ${name}`);
  };

  const drawModels = () => {
    const { models } = facts.datasets[choice.dataset];
    const shown = view();
    const value = matrix(shown.models);
    const names = shown.order.map((m) => models[m].name);
    const at = (r, c) => value(shown.order[r], shown.order[c]);
    draw(plots.models, { rows: names, columns: names, value: at, tree: shown.tree });
    byId("table-models").replaceChildren(table("Model", names, names, (r, c) => text(at(r, c), 3)));
  };
  const drawLayers = () => {
    const { models, layers } = facts.datasets[choice.dataset];
    const shown = view();
    const [sources, targets] = [models[choice.source].rows, models[choice.target].rows];
    const at = (packed) => (r, c) => matrix(packed)(sources[r], targets[c]);
    const frames = sources.map((row, r) => [r, shown.matches[row][choice.target]]).filter(([, c]) => c >= 0);
    const rows = sources.map((row) => layers[row]), columns = targets.map((row) => layers[row]);
    draw(plots.layers, {
      rows, columns, frames, value: at(shown.cells), chance: at(shown.chance), p: at(shown.p),
    });
    const matched = new Set(frames.map(([r, c]) => `${r},${c}`));
    byId("table-layers").replaceChildren(table(
      `${models[choice.source].name} → ${models[choice.target].name}`, rows, columns,
      (r, c) => text(at(shown.cells)(r, c), 3) + (matched.has(`${r},${c}`) ? " ●" : ""),
    ));
  };

  const offerModels = () => {
    const { models } = facts.datasets[choice.dataset];
    choice.source = Math.min(choice.source, models.length - 1);
    choice.target = Math.min(choice.target, models.length - 1);
    const names = models.map(({ name }, m) => [name, m]);
    fill("source", names, choice.source);
    fill("target", names, choice.target);
  };
  const offerStatistics = () => {
    const offered = facts.statistics.filter(({ name }) => name in facts.views[choice.dataset][choice.measure].views);
    if (!offered.some(({ name }) => name === choice.statistic)) choice.statistic = offered[0]?.name;
    fill("statistic", offered.map(({ name, meaning }) => [meaning, name]), choice.statistic);
    byId("convention").textContent = facts.measures[choice.measure].convention;
  };
  const hasNumbers = () => Object.keys(facts.views[choice.dataset]?.[choice.measure]?.views ?? {}).length > 0;
  const redraw = () => { offerStatistics(); if (hasNumbers()) { drawModels(); drawLayers(); } remember(); };

  // A page that is opened without a choice shows the first model beside the one nearest to it.
  const nearest = (source) => {
    const { models } = facts.datasets[choice.dataset];
    if (!hasNumbers()) return 0;
    const value = matrix(view().models);
    const others = models.map((_, m) => m).filter((m) => m !== source);
    return others.sort((a, b) => value(source, b) - value(source, a))[0] ?? source;
  };

  // The choice stands in the address, so that a link shows what its sender saw.
  const remember = () => {
    const { models } = facts.datasets[choice.dataset];
    const state = new URLSearchParams({
      dataset: facts.datasets[choice.dataset].name, measure: facts.measures[choice.measure].name,
      statistic: choice.statistic, source: models[choice.source].name, target: models[choice.target].name,
    });
    history.replaceState(null, "", `#${state}`);
  };
  const recall = () => {
    const state = new URLSearchParams(location.hash.slice(1));
    const number = (list, name, fallback) => { const i = list.findIndex((x) => x.name === name); return i < 0 ? fallback : i; };
    choice.dataset = number(facts.datasets, state.get("dataset"), 0);
    choice.measure = number(facts.measures, state.get("measure"), facts.default_measure);
    choice.statistic = state.get("statistic") ?? choice.statistic;
    const { models } = facts.datasets[choice.dataset];
    choice.source = number(models, state.get("source"), 0);
    choice.target = number(models, state.get("target"), nearest(choice.source));
  };

  const plots = {};
  const begin = async () => {
    if (!facts.datasets.length) return;
    recall();
    for (const name of ["models", "layers"]) {
      const views = await Bokeh.embed.embed_item(charts[name], `chart-${name}`);
      plots[name] = (views.roots ?? views)[0].model;
    }
    fill("dataset", facts.datasets.map(({ name }, d) => [name, d]), choice.dataset);
    fill("measure", facts.measures.map(({ name }, m) => [name, m]), choice.measure);
    offerModels();
    redraw();
    for (const id of ["dataset", "measure", "statistic", "source", "target"]) {
      byId(id).addEventListener("change", ({ target }) => {
        choice[id] = id === "statistic" ? target.value : Number(target.value);
        if (id === "dataset") offerModels();
        redraw();
      });
    }
    const cells = find(plots.models, "models-cells");
    cells.selected.properties.indices.change.connect(() => {
      const [cell] = cells.selected.indices;
      if (cell === undefined) return;
      const { order } = view();
      choice.source = order[Math.floor(cell / order.length)];
      choice.target = order[cell % order.length];
      cells.selected.indices = [];
      offerModels();
      redraw();
      byId("layers").scrollIntoView({ behavior: "smooth" });
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    document.documentElement.dataset.ready = "true";
  };
  begin();
})();
