"use strict";
// Draws the figures and tells, on the root element, what came of it:
// data-figures (drawn), data-errors (script errors), data-scroll-width and data-inner-width.
(() => {
  const root = document.documentElement;
  const errors = [];
  const note = (problem) => {
    errors.push(String(problem));
    root.dataset.errors = errors.join(" | ");
  };
  root.dataset.errors = "";
  window.addEventListener("error", (event) => note(event.message));
  window.addEventListener("unhandledrejection", (event) => note(event.reason));
  document.addEventListener("securitypolicyviolation", (event) => note(event.blockedURI));

  const plots = JSON.parse(document.getElementById("figures").textContent);
  const settings = { displayModeBar: false, responsive: true };
  const draw = async (plot) => {
    try {
      await Plotly.newPlot("plot-" + plot.key, plot.data, plot.layout, settings);
      return 1;
    } catch (problem) {
      note(problem);
      return 0;
    }
  };
  Promise.all(plots.map(draw)).then((drawn) => {
    root.dataset.figures = drawn.reduce((sum, one) => sum + one, 0);
    root.dataset.scrollWidth = root.scrollWidth;
    root.dataset.innerWidth = window.innerWidth;
  });

  // On paper, figures take the width of the page, and what was folded away but belongs there opens.
  const opened = [];
  const heights = new Map();
  const onPaper = (height) => Math.max(Math.min(height, 300), 0.8 * height);
  const figures = () => document.querySelectorAll(".plot");
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details.printed:not([open])")) {
      details.open = true;
      opened.push(details);
    }
    for (const figure of figures()) {
      if (!heights.has(figure)) heights.set(figure, figure.layout.height);
      Plotly.relayout(figure, { width: 660, height: onPaper(heights.get(figure)) });
    }
  });
  window.addEventListener("afterprint", () => {
    while (opened.length) opened.pop().open = false;
    for (const figure of figures()) {
      Plotly.relayout(figure, { width: null, height: heights.get(figure), autosize: true });
    }
  });
})();
