(function () {
  "use strict";
  var D = JSON.parse(document.getElementById("data").textContent);
  var MOST = 8; // methods in a chart; more cannot be told apart
  var SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "cross", "pentagon", "star"];
  var DASHES = ["0", "8,4", "2,3", "8,3,2,3", "14,4", "14,3,2,3", "5,5", "10,3,4,3"];
  var HATCH = ["", "/", ".", "\\", "x", "-", "|", "+"];
  var COSTS = [["Parameters", 1, 0], ["FLOPs of one row", 1, 1], ["Latency of one row, ms", 1000, 2], ["Latency of 64 rows, ms", 1000, 3],
    ["Memory for 64 rows, MB", 1e-6, 4], ["Training, s", 1, 5]];
  var dark = window.matchMedia("(prefers-color-scheme: dark)");

  // small things -------------------------------------------------------------------------------------------------
  function at(id) { return document.getElementById(id); }
  function all(selector, root) { return Array.prototype.slice.call((root || document).querySelectorAll(selector)); }
  function make(tag, text, css) {
    var node = document.createElement(tag);
    if (text !== undefined) { node.textContent = text; }
    if (css) { node.className = css; }
    return node;
  }
  function style(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
  function safe(text) { // Plotly reads texts as pseudo-HTML
    return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }
  function cut(text, most) { return text.length > most ? text.slice(0, most - 1) + "…" : text; }
  function known(v) { return v !== null && v !== undefined; }
  function say(v) { return !known(v) ? "–" : Math.abs(v) < 10 ? v.toFixed(3) : String(+v.toPrecision(4)); }
  function see(hex, alpha) {
    var n = parseInt(hex.slice(1), 16);
    return "rgba(" + (n >> 16) + "," + ((n >> 8) & 255) + "," + (n & 255) + "," + alpha + ")";
  }

  // the leaderboard ----------------------------------------------------------------------------------------------
  function sortBy(head) {
    var row = head.parentNode, place = Array.prototype.indexOf.call(row.children, head);
    var now = head.getAttribute("aria-sort"), first = head.dataset.first;
    var order = now === "none" ? first : now === "ascending" ? "descending" : "ascending";
    var sign = order === "ascending" ? 1 : -1, numbers = head.dataset.kind === "n", body = row.parentNode.parentNode.tBodies[0];
    var lines = all("tr", body).map(function (tr, i) {
      var v = tr.children[place].dataset.v;
      return { tr: tr, i: i, v: v === "" ? null : numbers ? +v : v.toLowerCase() };
    });
    lines.sort(function (a, b) { // what has no value stays below, whichever way
      if (a.v === null || b.v === null) { return (a.v === null) - (b.v === null) || a.i - b.i; }
      return sign * (a.v < b.v ? -1 : a.v > b.v ? 1 : 0) || a.i - b.i;
    });
    lines.forEach(function (line) { body.appendChild(line.tr); });
    all("th", row).forEach(function (th) { th.setAttribute("aria-sort", th === head ? order : "none"); });
  }
  all(".board thead button").forEach(function (button) {
    button.addEventListener("click", function () { sortBy(button.parentNode); });
  });

  var filters = document.querySelector(".filters");
  function filter() {
    var wanted = { training: filters.training.value, leaf: filters.leaf.value }, text = filters.text.value.trim().toLowerCase();
    var shown = 0, total = 0;
    all(".block").forEach(function (block) {
      var here = 0, other = filters.dataset_choice.value;
      all("tbody tr", block).forEach(function (tr) {
        var fits = (!other || block.dataset.dataset === other) && (!wanted.training || tr.dataset.training === wanted.training) &&
          (!wanted.leaf || tr.dataset.leaf === wanted.leaf) && (!text || tr.textContent.toLowerCase().indexOf(text) >= 0);
        tr.hidden = !fits;
        here += fits; total += 1;
      });
      block.hidden = !here;
      shown += here;
    });
    at("found").textContent = shown === total ? total + " rows" : shown + " of " + total + " rows";
    at("nothing").hidden = shown > 0;
  }
  filters.dataset_choice = filters.querySelector("[name=dataset]"); // a form has a property "dataset" of its own
  filters.addEventListener("input", filter);
  filters.addEventListener("submit", function (event) { event.preventDefault(); });
  filter();

  // what the figures show ----------------------------------------------------------------------------------------
  var block = 0, training = -1, slots = [];
  function units() {
    return D.blocks[block].units.filter(function (u) { return training < 0 || u.t === training; });
  }
  function name(u) { return D.methods[u.m] + (training < 0 && trainings().length > 1 ? " (" + D.trainings[u.t] + ")" : ""); }
  function M() { return D.blocks[block].metric; }
  function trainings() {
    var found = [];
    D.blocks[block].units.forEach(function (u) { if (found.indexOf(u.t) < 0) { found.push(u.t); } });
    return found.sort(function (a, b) { return a - b; });
  }
  function chosen() { // unit and place of its colour
    return slots.map(function (u, i) { return { u: u, i: i }; }).filter(function (s) { return s.u; });
  }
  function options(select, texts, values, value) {
    select.textContent = "";
    texts.forEach(function (text, i) {
      var option = make("option", cut(text, 60));
      option.value = values[i];
      select.appendChild(option);
    });
    select.value = value;
  }
  function swatch(i) {
    var marks = {
      circle: '<circle cx="16" cy="7" r="4"/>', square: '<rect x="12" y="3" width="8" height="8"/>', diamond: '<path d="M16 2l5 5-5 5-5-5z"/>',
      "triangle-up": '<path d="M16 2l5 9H11z"/>', x: '<path d="M11 4l2-2 3 3 3-3 2 2-3 3 3 3-2 2-3-3-3 3-2-2 3-3z"/>',
      cross: '<path d="M14 2h4v3h3v4h-3v3h-4V9h-3V5h3z"/>', pentagon: '<path d="M16 2l5 4-2 6h-6l-2-6z"/>',
      star: '<path d="M16 1l1.5 4h4.5l-3.5 3 1.3 4.5L16 10l-3.8 2.5L13.500 8 10 5h4.500z"/>'
    };
    var box = make("span");
    box.innerHTML = '<svg width="32" height="14" viewBox="0 0 32 14" aria-hidden="true"><path d="M0 7H32" style="fill:none;stroke:var(--m' + i + ');stroke-width:2;stroke-dasharray:' +
      (DASHES[i] === "0" ? "none" : DASHES[i]) + '"/><g style="fill:var(--m' + i + ')">' + marks[SYMBOLS[i]] + "</g></svg>";
    return box.firstChild;
  }

  function chooseBlock(value) {
    block = value;
    var found = trainings(), best = D.blocks[block].units[0];
    var texts = found.map(function (t) { return D.trainings[t]; }), values = found.map(String);
    if (found.length > 1) { texts.push("all, side by side"); values.push("-1"); }
    training = best.t;
    options(at("training"), texts, values, String(training));
    chooseTraining(training);
  }
  function chooseTraining(value) {
    training = value;
    slots = units().slice(0, MOST);
    list();
    refresh();
  }
  function list() {
    var box = document.querySelector("#pick .list");
    box.textContent = "";
    units().forEach(function (u) {
      var label = make("label"), tick = make("input");
      tick.type = "checkbox";
      tick.checked = slots.indexOf(u) >= 0;
      tick.addEventListener("change", function () {
        if (tick.checked) {
          var free = slots.indexOf(null);
          slots[free < 0 ? slots.length : free] = u;
        } else { slots[slots.indexOf(u)] = null; }
        refresh();
        limit();
      });
      label.appendChild(tick);
      label.appendChild(document.createTextNode(" " + name(u)));
      box.appendChild(label);
    });
    limit();
  }
  function limit() { // colours for eight, no more
    var full = chosen().length >= MOST;
    all("#pick input").forEach(function (tick) { tick.disabled = full && !tick.checked; });
  }

  // charts: drawn when they come near, and all of them for the printer --------------------------------------------
  function Plot() {
    if (!window.Plotly) { // 4.8 MB that are not even parsed before the first chart is in sight
      var script = make("script");
      script.text = at("plotly").textContent;
      document.head.appendChild(script);
    }
    return window.Plotly;
  }
  function draw(box) {
    var said = box.draw();
    var axis = { gridcolor: style("--grid"), linecolor: style("--line"), zeroline: false, color: style("--soft"), fixedrange: true, automargin: true };
    var layout = said.layout || {};
    Plot().react(box, said.traces, Object.assign({
      margin: { l: 44, r: 10, t: 8, b: 36 }, showlegend: false, dragmode: false, hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: "system-ui, sans-serif", size: 11, color: style("--soft") }
    }, layout, { xaxis: Object.assign({}, axis, layout.xaxis), yaxis: Object.assign({}, axis, layout.yaxis) }),
    { displayModeBar: false, responsive: true, doubleClick: false });
    box.dataset.drawn = "yes";
  }
  var watch = "IntersectionObserver" in window ? new IntersectionObserver(function (seen) {
    seen.forEach(function (entry) { if (entry.isIntersecting && entry.target.draw) { watch.unobserve(entry.target); draw(entry.target); } });
  }, { rootMargin: "300px" }) : null;
  function later(box, how) {
    box.draw = how;
    delete box.dataset.drawn;
    if (watch) { watch.unobserve(box); watch.observe(box); } else { draw(box); }
  }
  function clear(root) {
    all(".chart", root).forEach(function (box) {
      if (watch) { watch.unobserve(box); }
      if (box.dataset.drawn && window.Plotly) { window.Plotly.purge(box); }
    });
  }
  function figure(root, title, label, how) {
    var box = make("figure"), chart = make("div", "", "chart");
    box.appendChild(make("figcaption", title));
    chart.setAttribute("role", "img");
    chart.setAttribute("aria-label", label);
    box.appendChild(chart);
    root.appendChild(box);
    later(chart, how);
  }
  function line(s, x, y, more) {
    var colour = style("--m" + s.i);
    return Object.assign({
      x: x, y: y, name: safe(cut(name(s.u), 40)), mode: "lines+markers", line: { color: colour, width: 2, dash: DASHES[s.i] === "0" ? "solid" : DASHES[s.i].replace(/,/g, "px,") + "px" },
      marker: { color: colour, size: 6, symbol: SYMBOLS[s.i] }, hovertemplate: "%{y:.4g}<extra>%{fullData.name}</extra>"
    }, more);
  }

  // curves --------------------------------------------------------------------------------------------------------
  function curve(u, k) { // from the undamaged rows at 0
    var found = u.curves[k], about = D.blocks[block].curves[k];
    if (!found) { return null; }
    var start = about.x[0] === 0 ? [] : [0], parts = [[], [], []];
    parts.forEach(function (part, end) {
      var rest = found[end] || about.x.map(function () { return null; });
      start.forEach(function () { part.push(u.clean[end]); });
      rest.forEach(function (v) { part.push(v); });
    });
    return { x: start.concat(about.x), value: parts[0], low: parts[1], high: parts[2] };
  }
  function band(c, i) {
    var x = [], low = [], high = [];
    c.x.forEach(function (at, k) { if (known(c.low[k]) && known(c.high[k])) { x.push(at); low.push(c.low[k]); high.push(c.high[k]); } });
    return x.length < 2 ? null : { x: x.concat(x.slice().reverse()), y: high.concat(low.slice().reverse()), fill: "toself",
      fillcolor: see(style("--m" + i), dark.matches ? 0.2 : 0.13), line: { width: 0 }, mode: "lines", hoverinfo: "skip" };
  }
  function scale(curves) { // of the values, and of bands as far as they leave the values readable
    var values = [], ends = [];
    curves.forEach(function (c) { values = values.concat(c.value.filter(known)); ends = ends.concat(c.low.filter(known), c.high.filter(known)); });
    if (!values.length) { return [0, 1]; }
    var low = Math.min.apply(null, values), high = Math.max.apply(null, values), room = 0.25 * (high - low) || 0.05;
    ends = ends.filter(function (v) { return v > low - room && v < high + room; }).concat(low, high);
    var pad = 0.04 * (high - low) || 0.02;
    return [Math.min.apply(null, ends) - pad, Math.max.apply(null, ends) + pad];
  }
  function curves(section) {
    var want = section.dataset.needs, about = D.blocks[block].curves, box = section.querySelector(".charts"), places = [];
    about.forEach(function (c, k) {
      var mine = (c.kind === "rate") === (want === "rate");
      if (mine && chosen().some(function (s) { return s.u.curves[k]; })) { places.push(k); }
    });
    var headings = about.map(function (c) { return c.heading; });
    places.sort(function (a, b) { return headings.indexOf(headings[a]) - headings.indexOf(headings[b]) || a - b; });
    clear(box);
    box.textContent = "";
    empty(section, !places.length, [".charts", ".numbers"]);
    var everything = [];
    places.forEach(function (k) { chosen().forEach(function (s) { var c = curve(s.u, k); if (c) { everything.push(c); } }); });
    var range = scale(everything), heading = null;
    places.forEach(function (k) {
      var c = about[k];
      if (c.heading !== heading) { heading = c.heading; if (heading) { box.appendChild(make("h3", heading)); } }
      figure(box, c.title, c.title + ": " + M() + " against " + c.axis + "; the numbers are in the table below", function () {
        var bands = [], lines = [];
        chosen().forEach(function (s) {
          var one = curve(s.u, k);
          if (!one) { return; }
          var b = band(one, s.i);
          if (b) { bands.push(b); }
          lines.push(line(s, one.x, one.value, { connectgaps: true }));
        });
        var guess = D.blocks[block].guess, shapes = known(guess) ? [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: guess, y1: guess, line: { color: style("--soft"), width: 1, dash: "4px,4px" } }] : [];
        return { traces: bands.concat(lines), layout: { shapes: shapes, xaxis: { title: { text: c.axis, standoff: 4 }, nticks: 7 }, yaxis: { range: range, nticks: 5 } } };
      });
    });
    unfold(section, function () {
      var steps = [];
      places.forEach(function (k) { (about[k].x[0] === 0 ? [] : [0]).concat(about[k].x).forEach(function (x) { if (steps.indexOf(x) < 0) { steps.push(x); } }); });
      steps.sort(function (a, b) { return a - b; });
      var rows = [];
      places.forEach(function (k) {
        chosen().forEach(function (s) {
          var one = curve(s.u, k);
          if (!one) { return; }
          rows.push([(about[k].heading ? about[k].heading + ": " : "") + about[k].title, name(s.u)].concat(steps.map(function (x) {
            var p = one.x.indexOf(x);
            return p < 0 ? "–" : say(one.value[p]) + (known(one.low[p]) ? " ±" + say((one.high[p] - one.low[p]) / 2) : "");
          })));
        });
      });
      return table(["Curve", "Method"].concat(steps.map(String)), rows, 2);
    });
  }
  function table(heads, rows, words) {
    var box = make("table"), head = make("tr"), body = make("tbody");
    heads.forEach(function (text, i) { var th = make("th", text, i < words ? "words" : ""); th.scope = "col"; head.appendChild(th); });
    box.appendChild(make("thead")).appendChild(head);
    rows.forEach(function (cells) {
      var tr = make("tr");
      cells.forEach(function (text, i) { var td = make(i ? "td" : "th", text, i < words ? "words" : ""); if (!i) { td.scope = "row"; } tr.appendChild(td); });
      body.appendChild(tr);
    });
    box.appendChild(body);
    return box;
  }
  function unfold(section, how) { // a table of numbers is made when it is opened
    var details = section.querySelector(".numbers"), box = details.querySelector(".wide");
    box.textContent = "";
    details.ontoggle = function () { if (details.open && !box.firstChild) { box.appendChild(how()); } };
    details.ontoggle();
  }
  function empty(section, is, parts) {
    section.querySelector(".none").hidden = !is;
    parts.forEach(function (part) { all(part, section).forEach(function (node) { node.hidden = is; }); });
  }

  // subsets -------------------------------------------------------------------------------------------------------
  function subsets(section) {
    var names = D.blocks[block].subsets, box = section.querySelector(".wide");
    var columns = units().filter(function (u) { return u.subsets.some(known); });
    box.textContent = "";
    empty(section, !columns.length, [".wide"]);
    if (!columns.length) { return; }
    var values = [];
    columns.forEach(function (u) { values = values.concat(u.subsets.filter(known)); });
    var low = Math.min.apply(null, values), high = Math.max.apply(null, values);
    var made = table(["Present"].concat(columns.map(name)), names.map(function (n, k) {
      return [n].concat(columns.map(function (u) { return say(u.subsets[k]); }));
    }), 1);
    made.className = columns.length > 6 ? "heat many" : "heat";
    all("thead th", made).forEach(function (th) { var span = make("span", th.textContent); span.title = th.textContent; th.textContent = ""; th.appendChild(span); });
    all("tbody tr", made).forEach(function (tr, k) {
      var row = columns.map(function (u) { return u.subsets[k]; }), there = row.filter(known);
      var best = there.length > 1 ? (D.blocks[block].higher ? Math.max : Math.min).apply(null, there) : null;
      row.forEach(function (v, c) {
        if (!known(v)) { return; }
        var part = high > low ? (v - low) / (high - low) : 0, td = tr.children[c + 1];
        td.style.background = "color-mix(in srgb, var(--heat) " + Math.round(70 * (D.blocks[block].higher ? part : 1 - part)) + "%, transparent)";
        if (v === best) { td.className = "best"; }
      });
    });
    box.appendChild(made);
  }

  // cost ----------------------------------------------------------------------------------------------------------
  var axis = 0;
  function costs(section) {
    var there = COSTS.filter(function (c) { return units().some(function (u) { return known(u.cost[c[2]]); }); });
    empty(section, !there.length, ["figure", ".inline"]);
    at("without").textContent = "";
    if (!there.length) { return; }
    if (!there.some(function (c) { return c[2] === axis; })) { axis = there[0][2]; }
    options(at("axis"), there.map(function (c) { return c[0]; }), there.map(function (c) { return String(c[2]); }), String(axis));
    var cost = COSTS[axis], points = units().map(function (u) {
      return { u: u, x: known(u.cost[axis]) ? u.cost[axis] * cost[1] : null, y: known(u.mean[0]) ? u.mean[0] : u.clean[0], c: u.clean[0] };
    }), shown = points.filter(function (p) { return known(p.x) && known(p.y) && p.x > 0; });
    if (shown.length < points.length) { at("without").textContent = (points.length - shown.length) + " of " + points.length + " without this cost."; }
    later(section.querySelector(".chart"), function () {
      var sorted = shown.slice().sort(function (a, b) { return a.x - b.x || (D.blocks[block].higher ? b.y - a.y : a.y - b.y); }), front = [];
      sorted.forEach(function (p) { var last = front[front.length - 1]; if (!last || (D.blocks[block].higher ? p.y > last.y : p.y < last.y)) { front.push(p); } });
      var clean = shown.map(function (p) { return p.c; }).filter(known), low = Math.min.apply(null, clean), high = Math.max.apply(null, clean);
      var narrow = window.innerWidth < 600, xs = shown.map(function (p) { return p.x; }), least = Math.min.apply(null, xs);
      var span = Math.max.apply(null, xs) / least, logs = span > 20;
      return {
        traces: [
          { x: front.map(function (p) { return p.x; }), y: front.map(function (p) { return p.y; }), mode: "lines", line: { color: style("--vein"), width: 2, dash: "6px,4px" }, hoverinfo: "skip" },
          { x: shown.map(function (p) { return p.x; }), y: shown.map(function (p) { return p.y; }), mode: "markers+text",
            text: shown.map(function (p) { return front.indexOf(p) >= 0 || shown.length <= 8 ? "  " + safe(cut(name(p.u), narrow ? 16 : 28)) + "  " : ""; }),
            textposition: shown.map(function (p) { return (logs ? p.x > least * Math.sqrt(span) : p.x > least * (1 + span) / 2) ? "middle left" : "middle right"; }),
            textfont: { color: style("--ink"), size: narrow ? 10 : 12 }, cliponaxis: false,
            customdata: shown.map(function (p) { return [safe(name(p.u)), say(p.c)]; }),
            marker: { color: shown.map(function (p) { return p.c; }), colorscale: "Cividis", cmin: low, cmax: high > low ? high : low + 0.01, line: { color: style("--ink"), width: 1 },
              size: shown.map(function (p) { var part = high > low && known(p.c) ? (p.c - low) / (high - low) : 0.5; return 9 + 11 * (D.blocks[block].higher ? part : 1 - part); }),
              colorbar: { title: { text: "undamaged", side: "top" }, thickness: 10, len: 0.7, outlinewidth: 0, nticks: 5 } },
            hovertemplate: "%{customdata[0]}<br>%{y:.4g} at %{x:.4s}<br>undamaged %{customdata[1]}<extra></extra>" }
        ],
        layout: { margin: { l: 50, r: 10, t: 24, b: 44 }, xaxis: { type: logs ? "log" : "linear", title: { text: cost[0], standoff: 6 }, rangemode: "normal" },
          yaxis: { title: { text: M() + ", degraded", standoff: 6 } } }
      };
    });
  }

  // calibration ---------------------------------------------------------------------------------------------------
  var ROWS = ["undamaged", "degraded"];
  function trust(section) {
    var box = section.querySelector(".charts");
    clear(box);
    box.textContent = "";
    var some = false;
    ROWS.forEach(function (rows, k) {
      if (chosen().some(function (s) { return s.u.reliability && s.u.reliability[k]; })) {
        some = true;
        figure(box, "Reliability, " + rows, "Reliability diagram of " + rows + " rows", function () {
          var lines = chosen().filter(function (s) { return s.u.reliability && s.u.reliability[k]; }).map(function (s) {
            var r = s.u.reliability[k], most = Math.max.apply(null, r[2]);
            return line(s, r[0], r[1], { marker: { color: style("--m" + s.i), symbol: SYMBOLS[s.i], line: { width: 0 }, size: r[2].map(function (n) { return 4 + 5 * Math.sqrt(n / most); }) },
              customdata: r[2], hovertemplate: "%{x:.3g} sure, %{y:.3g} right, %{customdata} rows<extra>%{fullData.name}</extra>" });
          });
          return { traces: [{ x: [0, 1], y: [0, 1], mode: "lines", line: { color: style("--soft"), width: 1, dash: "3px,3px" }, hoverinfo: "skip" }].concat(lines),
            layout: { xaxis: { title: { text: "confidence", standoff: 4 }, range: [-0.03, 1.04] }, yaxis: { title: { text: "right", standoff: 4 }, range: [-0.03, 1.04] } } };
        });
      }
      if (chosen().some(function (s) { return s.u.risk && s.u.risk[k]; })) {
        some = true;
        figure(box, "Risk–coverage, " + rows, "Risk against coverage of " + rows + " rows", function () {
          return { traces: chosen().filter(function (s) { return s.u.risk && s.u.risk[k]; }).map(function (s) {
            var r = s.u.risk[k];
            return line(s, r.map(function (_, i) { return (i + 1) / r.length; }), r, { marker: { color: style("--m" + s.i), symbol: SYMBOLS[s.i], size: 5, maxdisplayed: 6 } });
          }), layout: { xaxis: { title: { text: "share answered", standoff: 4 }, range: [-0.03, 1.04] }, yaxis: { title: { text: "errors", standoff: 4 }, rangemode: "tozero" } } };
        });
      }
    });
    empty(section, !some, [".charts"]);
  }

  // contributions -------------------------------------------------------------------------------------------------
  function shares(section) {
    var names = D.blocks[block].modalities, box = section.querySelector(".chart");
    var rows = chosen().map(function (s) { return s.u; }).filter(function (u) { return u.share && u.share.some(function (v) { return known(v[0]); }); });
    empty(section, !rows.length, ["figure", ".numbers"]);
    if (!rows.length) { return; }
    var narrow = window.innerWidth < 600;
    box.style.height = 84 + 34 * rows.length + 20 * Math.ceil(names.length * 130 / (narrow ? 340 : 1200)) + "px";
    later(box, function () {
      var labels = rows.map(function (u) { return safe(cut(name(u), narrow ? 16 : 36)) + (known(u.equity) ? "<br>equity " + say(u.equity) : ""); });
      return {
        traces: names.map(function (modality, m) {
          return { type: "bar", orientation: "h", name: safe(modality), y: rows.map(function (_, i) { return i; }), x: rows.map(function (u) { return u.share[m][0]; }),
            marker: { color: style("--m" + m % 8), pattern: { fillmode: "overlay", shape: HATCH[(m + Math.floor(m / 8)) % 8], size: 6, solidity: 0.25, fgcolor: style("--card") } },
            customdata: rows.map(function (u) { var v = u.share[m]; return [safe(name(u)), known(v[1]) ? " [" + say(v[1]) + ", " + say(v[2]) + "]" : ""]; }),
            hovertemplate: "%{customdata[0]}: %{x:.4g}%{customdata[1]}<extra>%{fullData.name}</extra>" };
        }),
        layout: { barmode: "relative", showlegend: true, legend: { orientation: "h", y: 1.01, yanchor: "bottom", x: 0, traceorder: "normal", itemclick: false, itemdoubleclick: false }, bargap: 0.25, margin: { l: 60, r: 12, t: 6, b: 38 },
          xaxis: { zeroline: true, zerolinecolor: style("--soft"), zerolinewidth: 1, title: { text: "gain in " + M(), standoff: 4 } },
          yaxis: { tickvals: rows.map(function (_, i) { return i; }), ticktext: labels, autorange: "reversed" } }
      };
    });
    unfold(section, function () {
      return table(["Method"].concat(names, ["Equity"]), rows.map(function (u) {
        return [name(u)].concat(u.share.map(function (v) { return say(v[0]) + (known(v[1]) ? " ±" + say((v[2] - v[1]) / 2) : ""); }), [say(u.equity)]);
      }), 1);
    });
  }

  // together ------------------------------------------------------------------------------------------------------
  var SECTIONS = { rates: curves, severity: curves, subsets: subsets, cost: costs, trust: trust, share: shares };
  function refresh() {
    var legend = at("legend");
    legend.textContent = "";
    chosen().forEach(function (s) {
      var item = make("li");
      item.appendChild(swatch(s.i));
      item.appendChild(make("span", cut(name(s.u), 48)));
      item.title = name(s.u);
      legend.appendChild(item);
    });
    document.querySelector("#pick summary").textContent = "Methods: " + chosen().length + " of " + units().length;
    Object.keys(SECTIONS).forEach(function (id) { if (at(id)) { SECTIONS[id](at(id)); } });
  }
  options(at("block"), D.blocks.map(function (b) { return b.title; }), D.blocks.map(function (_, i) { return String(i); }), "0");
  at("block").addEventListener("change", function () { chooseBlock(+at("block").value); });
  at("training").addEventListener("change", function () { chooseTraining(+at("training").value); });
  if (at("axis")) { at("axis").addEventListener("change", function () { axis = +at("axis").value; costs(at("cost")); }); }
  document.addEventListener("click", function (event) { if (!at("pick").contains(event.target)) { at("pick").open = false; } });
  document.addEventListener("keydown", function (event) { if (event.key === "Escape") { at("pick").open = false; } });
  chooseBlock(0);
  window.addEventListener("beforeprint", function () {
    all(".chart").forEach(function (box) { if (box.draw && !box.dataset.drawn && !box.closest("[hidden]")) { draw(box); } });
  });
  dark.addEventListener("change", function () {
    all(".chart").forEach(function (box) { if (box.dataset.drawn) { draw(box); } });
  });
})();
