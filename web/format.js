/* format.js - numbers as people read them. Every function takes null for "not known" and then gives a dash. */

const DASH = '–';

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

export function count(n) {
  if (n == null) return DASH;
  if (n >= 1e9) return `${(n / 1e9).toFixed(2)} G`;
  if (n >= 1e7) return `${(n / 1e6).toFixed(1)} M`;
  return whole.format(n);
}

/* A request costs millionths, a month costs thousands: as many decimals as the amount needs. */
export function money(usd) {
  if (usd == null) return DASH;
  const decimals = usd === 0 || usd >= 1 ? 2 : usd >= 0.1 ? 3 : usd >= 0.01 ? 4 : usd >= 0.001 ? 5 : 6;
  return '$' + usd.toLocaleString('en-US', { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

export function duration(ms) {
  if (ms == null) return DASH;
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(2)} s`;
  return `${Math.floor(ms / 60000)} min ${Math.round((ms % 60000) / 1000)} s`;
}

export function rate(n) {
  if (n == null) return DASH;
  return n >= 100 ? whole.format(n) : n >= 1 ? n.toFixed(1) : n >= 0.01 || n === 0 ? n.toFixed(2) : n.toPrecision(1);
}

export function percent(share) {
  if (share == null || !Number.isFinite(share)) return DASH;
  const p = share * 100;
  return `${p > 0 && p < 10 ? p.toFixed(1) : Math.round(p)} %`;
}

/* Marks of an axis: just the decimals that tell neighbours apart. */
export function moneyTick(usd, step) {
  const decimals = step > 0 ? Math.min(Math.max(Math.ceil(-Math.log10(step) - 1e-9), 0), 8) : 0;
  return usd === 0 ? '$0' : `$${usd.toLocaleString('en-US', { minimumFractionDigits: decimals, maximumFractionDigits: decimals })}`;
}

/* Times of the day; with the weekday where a window is longer than a day. */
export function clock(seconds, { withSeconds = false, withDay = false } = {}) {
  const options = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' };
  if (withSeconds) options.second = '2-digit';
  if (withDay) options.weekday = 'short';
  return new Date(seconds * 1000).toLocaleString('en-GB', options);
}

const stageNames = { 'recall.exact': 'Memory', answer: 'Model', none: 'Nobody' };

/* The stage's own name where we have no plainer word, so that a new stage shows up without a change here. */
export function stage(name) {
  return stageNames[name || 'none'] ?? name;
}
