/* charts.js - the two charts over time: stacked bars, so that a column's height is the whole (all requests; what it
 * would have cost without pare). Colours come from style.css, and again when the colour scheme changes.               */
/* global Chart */
import { clock, count, money, moneyTick } from '/web/format.js';

const charts = [];
let steps = { times: [], withDay: false }; /* of both charts */

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function axis(format) {
  return {
    stacked: true,
    beginAtZero: true,
    grid: { drawBorder: false, drawTicks: false },
    ticks: { maxTicksLimit: 4, padding: 8, callback: (v, i, ticks) => format(v, ticks[1]?.value - ticks[0]?.value) },
  };
}

function paint(chart) {
  chart.data.datasets.forEach((set) => {
    set.backgroundColor = colour(set.paint);
  });
  for (const scale of Object.values(chart.options.scales)) {
    scale.ticks.color = colour('--muted');
    scale.grid.color = colour('--line');
  }
  chart.update('none');
}

function bars(id, datasets, format, formatTick) {
  const chart = new Chart(document.getElementById(id), {
    type: 'bar',
    data: { labels: [], datasets },
    options: {
      animation: false,
      maintainAspectRatio: false,
      interaction: { mode: 'index', intersect: false },
      datasets: { bar: { categoryPercentage: 0.92, barPercentage: 0.92, borderRadius: 1.5, maxBarThickness: 22 } },
      scales: {
        x: {
          stacked: true,
          grid: { display: false, drawBorder: false },
          ticks: { maxTicksLimit: 6, maxRotation: 0, autoSkipPadding: 24, callback: (v, i) => clock(steps.times[i], steps) },
        },
        y: axis(formatTick),
      },
      plugins: {
        legend: { display: false }, /* the caption names the colours */
        tooltip: {
          displayColors: false,
          callbacks: {
            title: ([item]) => clock(steps.times[item.dataIndex], { ...steps, withSeconds: true }),
            label: (item) => `${item.dataset.label}: ${format(item.raw)}`,
          },
        },
      },
    },
  });
  charts.push(chart);
  paint(chart);
  return chart;
}

function fill(chart, ...values) {
  chart.data.labels = steps.times;
  values.forEach((v, i) => {
    chart.data.datasets[i].data = v;
  });
  chart.update('none');
}

let requests;
let spent;

export function openCharts() {
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  Chart.defaults.font.size = 12;
  requests = bars(
    'chart-requests',
    [
      { label: 'from memory', paint: '--green-soft', data: [] },
      { label: 'computed', paint: '--blue', data: [] },
    ],
    count,
    (v) => (Number.isInteger(v) ? count(v) : ''),
  );
  spent = bars(
    'chart-money',
    [
      { label: 'spent', paint: '--blue', data: [] },
      { label: 'saved', paint: '--green-soft', data: [] },
    ],
    money,
    moneyTick,
  );
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => charts.forEach(paint));
}

export function drawCharts(stats) {
  steps = { times: stats.series.map((s) => s.t), withDay: stats.window_s > 86400 };
  const hits = stats.series.map((s) => s.hits);
  fill(requests, hits, stats.series.map((s) => s.requests - s.hits));
  fill(spent, stats.series.map((s) => s.cost_usd), stats.series.map((s) => s.saved_usd));
  const all = hits.reduce((sum, n) => sum + n, 0);
  requests.canvas.setAttribute('aria-label',
    `Requests over time: ${count(stats.requests)} in all, ${count(all)} of them answered from memory.`);
  spent.canvas.setAttribute('aria-label',
    `Money over time: ${money(stats.saved_usd)} saved, ${money(stats.cost_usd)} spent.`);
}
