// Draws docs/images/dashboard.png: the panels of the dashboard with the data of a real Prometheus, from three nodes
// under load while one of them is replaced. The picture does not come from Grafana, which is not run here; the positions,
// titles, queries and units are the dashboard's. Needs Chromium (CHROMIUM names its path; the default is Debian's).
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { at, Deployment, sendSteps, RelayClient, startPairs, step, until } from './support.mjs';

const COLUMN = 60;
const LINE = 26;
const COLOURS = ['#73bf69', '#f2cc0c', '#8ab8ff', '#ff780a', '#f2495c', '#b877d9', '#5794f2', '#96d98d', '#ffb357', '#ca95e5'];
const LENGTH = 80;

const { panels } = JSON.parse(readFileSync(at('deploy/grafana/dashboard.json'), 'utf8'));
const escapeHtml = (text) => String(text).replaceAll('&', '&amp;').replaceAll('<', '&lt;');

/** Runs clients that join, take control from each other, cause refusals and leave, and replaces a node during that. */
async function measure() {
  const deployment = await Deployment.start();
  const pairs = await startPairs(deployment.address, 150);
  const halt = sendSteps(pairs, 300);
  const began = Date.now() / 1000;
  let turn = 0;
  const guests = setInterval(async () => {
    const guest = new RelayClient(deployment.address);
    guest.on('error', () => {});
    // Always the same few sessions, so that the others are not disturbed.
    const { controller } = pairs[turn++ % 10];
    try {
      await guest.connectToSession(controller.getCurrentSessionId());
      await guest.acceptControlTransfer();
      guest.sendTutorialState(step(1));
      await controller.acceptControlTransfer();
    } catch {
      // A refused or late call is counted, too.
    }
    setTimeout(() => guest.disconnect(), 500 * (turn % 8));
  }, 250);
  await pause(LENGTH * 350);
  await deployment.nodes[1].program.stop('SIGTERM');
  await deployment.startNode(deployment.nodes[1]);
  await until('the end of the measurement', () => Date.now() / 1000 > began + LENGTH, 2 * LENGTH * 1000);
  const drawn = await Promise.all(panels.map((panel) => fill(deployment, panel, began)));
  halt();
  clearInterval(guests);
  for (const pair of pairs) pair.stop();
  await deployment.stop();
  return drawn;
}

async function fill(deployment, panel, began) {
  const results = [];
  for (const { expr, legendFormat } of panel.targets ?? []) {
    const query = expr.replaceAll('$job', 'gitorial-relay').replaceAll('$instance', '.+').replaceAll('$__rate_interval', '10s');
    const range = { query, start: String(began + 5), end: String(began + LENGTH), step: '1' };
    const { result } = await deployment.ask('query_range', range);
    for (const { metric, values } of result) {
      const node = deployment.nodes.find(({ ops }) => metric.instance === `127.0.0.1:${ops}`);
      const labels = { ...metric, ...(node && { instance: node.name }) };
      const name = legendFormat.replaceAll(/\{\{(\w+)\}\}/g, (_, label) => labels[label] ?? '');
      results.push({ name, points: values.map(([time, value]) => [time - began - 5, Number(value)]) });
    }
  }
  return { panel, results };
}

const round = (value) => (value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(2))));
const short = (value) => (value >= 1e6 ? `${round(value / 1e6)} M` : value >= 1e4 ? `${round(value / 1e3)} k` : round(value));
function written(value, unit) {
  if (!Number.isFinite(value)) return '–';
  switch (unit) {
    case 's':
      return value === 0
        ? '0'
        : value < 1e-3
          ? `${round(value * 1e6)} µs`
          : value < 1
            ? `${round(value * 1e3)} ms`
            : `${round(value)} s`;
    case 'bytes':
      return value < 1024 * 1024 ? `${round(value / 1024)} KiB` : `${round(value / 1024 / 1024)} MiB`;
    case 'ops':
    case 'reqps':
      return `${short(value)}/s`;
    default:
      return short(value);
  }
}

function lines(results, unit, stacked, width, height) {
  const base = new Map();
  const drawn = results.map(({ name, points }, index) => {
    const at = points
      .filter(([, value]) => Number.isFinite(value))
      .map(([time, value]) => {
        const below = stacked ? (base.get(time) ?? 0) : 0;
        base.set(time, below + value);
        return [time, below + value];
      });
    return { name, at, colour: COLOURS[index % COLOURS.length] };
  });
  const top = Math.max(...drawn.flatMap(({ at }) => at.map(([, value]) => value)), 0) * 1.1 || 1;
  const x = (time) => 52 + (time / (LENGTH - 5)) * (width - 62);
  const y = (value) => height - 8 - (value / top) * (height - 16);
  const grid = [0, 0.5, 1].map((share) => {
    const label = `<text x="46" y="${y(top * share) + 4}" text-anchor="end">${escapeHtml(written(top * share, unit))}</text>`;
    return `<line x1="52" x2="${width - 10}" y1="${y(top * share)}" y2="${y(top * share)}" stroke="#2c3235"/>${label}`;
  });
  const paths = drawn.toReversed().map(({ at, colour }) => {
    const path = at.map(([time, value]) => `${x(time).toFixed(1)},${y(value).toFixed(1)}`).join(' ');
    return `<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="1.5"/>`;
  });
  const legend = drawn
    .filter(({ at, name }) => name && (at.some(([, value]) => value > 0) || drawn.length < 4))
    .map(({ name, colour }) => `<span><i style="background:${colour}"></i>${escapeHtml(name)}</span>`);
  return `<svg width="${width}" height="${height}">${grid.join('')}${paths.join('')}</svg><p>${legend.join(' ')}</p>`;
}

function heat(results, width, height) {
  const buckets = results.filter(({ name }) => name !== '+Inf').toSorted((a, b) => a.name - b.name);
  const counts = buckets.map(({ points }, index) =>
    points.map(([time, value]) => [time, value - (buckets[index - 1]?.points.find(([other]) => other === time)?.[1] ?? 0)]),
  );
  const most = Math.max(...counts.flat().map(([, count]) => count), 1e-9);
  const [w, h] = [(width - 62) / (LENGTH - 5), (height - 16) / buckets.length];
  const cells = counts.flatMap((row, index) =>
    row
      .filter(([, count]) => count > 0)
      .map(([time, count]) => {
        const place = `x="${(52 + time * w).toFixed(1)}" y="${(height - 8 - (index + 1) * h).toFixed(1)}"`;
        const size = `width="${w.toFixed(1)}" height="${h.toFixed(1)}"`;
        return `<rect ${place} ${size} fill="#ff9830" opacity="${(0.1 + (0.9 * count) / most).toFixed(2)}"/>`;
      }),
  );
  const labels = buckets
    .filter((_, index) => index % 4 === 0)
    .map(
      ({ name }, index) =>
        `<text x="46" y="${height - 8 - index * 4 * h}" text-anchor="end">${written(Number(name), 's')}</text>`,
    );
  return `<svg width="${width}" height="${height}">${cells.join('')}${labels.join('')}</svg>`;
}

function draw({ panel, results }) {
  const { x, y, w, h } = panel.gridPos;
  const [width, height] = [w * COLUMN - 8, h * LINE - 8];
  const place = `left:${x * COLUMN + 4}px;top:${y * LINE + 4}px;width:${width}px;height:${height}px`;
  if (panel.type === 'row') return `<h2 style="${place}">${escapeHtml(panel.title)}</h2>`;
  const { unit, custom } = panel.fieldConfig.defaults;
  const inner = {
    stat: () => `<b>${escapeHtml(written(results[0]?.points.at(-1)?.[1] ?? NaN, unit))}</b>`,
    heatmap: () => heat(results, width, height - 30),
    timeseries: () =>
      results.length ? lines(results, unit, custom.stacking !== undefined, width, height - 62) : '<em>none, as expected</em>',
  }[panel.type]();
  return `<section style="${place}"><h3>${escapeHtml(panel.title)}</h3>${inner}</section>`;
}

const drawn = await measure();
const height = Math.max(...panels.map(({ gridPos: { y, h } }) => y + h)) * LINE + 8;
const page = `<!doctype html><meta charset="utf-8"><style>
body { margin: 0; background: #111217; color: #ccccdc; font: 11px sans-serif; }
section, h2 { position: absolute; box-sizing: border-box; margin: 0; overflow: hidden; }
section { background: #181b1f; border: 1px solid #25282d; border-radius: 3px; }
h2 { font-size: 14px; padding-top: 4px; font-weight: 500; }
h3 { margin: 6px 10px; font-size: 12px; font-weight: 500; }
b { display: block; font-size: 30px; font-weight: 500; color: #73bf69; margin: 14px 10px; }
em { display: block; margin: 40px 10px; text-align: center; color: #73bf69; font-style: normal; }
p { margin: 2px 10px; height: 28px; overflow: hidden; } span { margin-right: 8px; white-space: nowrap; }
i { display: inline-block; width: 12px; height: 3px; margin-right: 4px; vertical-align: middle; }
text { fill: #8e8e9a; font-size: 10px; }
</style>${drawn.map(draw).join('\n')}`;
const file = join(process.env.TMPDIR ?? '/tmp', `gitorial-dashboard-${process.pid}.html`);
writeFileSync(file, page);
const picture = at('docs/images/dashboard.png');
const size = `--window-size=${24 * COLUMN},${height}`;
const arguments_ = ['--headless', '--no-sandbox', '--hide-scrollbars', size, `--screenshot=${picture}`, `file://${file}`];
const { status, stderr } = spawnSync(process.env.CHROMIUM ?? '/usr/bin/chromium', arguments_, { encoding: 'utf8' });
if (status !== 0) throw new Error(stderr);
console.log(`drawn: ${picture}`);
process.exit(0);
