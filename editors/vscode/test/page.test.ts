// The log view's page in a real Chromium, under the policy that it has in the editor: what it draws, and what it costs at
// 100,000 lines. The figures are printed; the bounds on them leave room for a slow, busy machine.
import assert from 'node:assert/strict';
import { existsSync, promises as fs } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { chromium, type Browser, type Page } from 'playwright-core';

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const skip = existsSync(executablePath) ? false : `there is no ${executablePath}: install Chromium, or set CHROMIUM`;
if (skip && process.env.CI === 'true') throw new Error(skip);

const dist = path.join(import.meta.dirname, '../dist');
let browser: Browser;
let server: http.Server;
let page: Page;

// In the editor the nonce is another one each time.
const html = `<!DOCTYPE html><html><head><meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'nonce-n'; style-src 'self';"><link rel="stylesheet" href="logs.css"></head><body class="vscode-dark"><script nonce="n" src="stub.js"></script><script nonce="n" src="logs.js"></script></body></html>`;
const stub = `
  window.posted = []; window.violations = [];
  document.addEventListener('securitypolicyviolation', (e) => window.violations.push(e.violatedDirective));
  let saved = JSON.parse(sessionStorage.getItem('state') ?? 'null') ?? undefined;
  window.acquireVsCodeApi = () => ({ postMessage: (m) => window.posted.push(m), getState: () => saved, setState: (s) => sessionStorage.setItem('state', JSON.stringify(s)) });
  // How long each of the page's own frames takes, and how far apart frames are.
  window.work = []; window.gaps = [];
  const raf = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (f) => raf((t) => { const s = performance.now(); f(t); window.work.push(performance.now() - s); });
  let last = 0; const tick = (t) => { if (last) window.gaps.push(t - last); last = t; raf(tick); }; raf(tick);
`;

before(async () => {
  if (skip) return;
  server = http.createServer((q, r) => {
    const name = q.url!.slice(1);
    if (name === '' || name === 'stub.js') {
      r.setHeader('content-type', name === '' ? 'text/html' : 'text/javascript');
      r.end(name === '' ? html : stub);
      return;
    }
    fs.readFile(path.join(dist, path.basename(name))).then((b) => {
      r.setHeader('content-type', name.endsWith('.css') ? 'text/css' : 'text/javascript');
      r.end(b);
    }, () => r.writeHead(404).end());
  });
  await new Promise<void>((r) => server.listen(0, '127.0.0.1', r));
  browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--enable-precise-memory-info'] });
});
after(async () => {
  await browser?.close();
  server?.close();
  server?.closeAllConnections();
});

const post = (m: object): Promise<void> => page.evaluate((x) => window.postMessage(x, '*'), m);
const hook = <T>(name: string): Promise<T> => page.evaluate((n) => (window as unknown as { fairleadLogs: Record<string, () => unknown> }).fairleadLogs[n]!(), name) as Promise<T>;
const settled = async (rows: number): Promise<void> => {
  await page.waitForFunction((n) => {
    const h = (window as unknown as { fairleadLogs: Record<string, () => number> }).fairleadLogs;
    return h.rows!() >= n && h.queued!() === 0;
  }, rows, { timeout: 60_000 });
  await frames(3);
};
const frames = (n: number): Promise<void> => page.evaluate(async (k) => {
  for (let i = 0; i < k; i++) await new Promise((r) => requestAnimationFrame(r));
}, n);
const text = async (): Promise<string> => (await page.locator('.list').innerText()).replace(/\u00a0/g, ' ');
const at = '2026-11-23T03:00:00.000Z';
const log = (i: number, o: object = {}, line: object | null = { level: 'info', message: `order ${i} placed`, attrs: [['customer', 'ada'], ['total', '12.50']] }): string =>
  JSON.stringify({ seq: i, event: { type: 'log', generation: 1, time: at, stream: 'stdout', text: `{"level":"INFO","msg":"order ${i} placed","customer":"ada","total":"12.50"}`, ...o }, ...(line ? { line } : {}) });

async function open(lines: string[]): Promise<void> {
  page = await browser.newPage({ viewport: { width: 1200, height: 400 } });
  page.setDefaultTimeout(10_000);
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  await begin(lines);
}
async function begin(lines: string[]): Promise<void> {
  await post({ type: 'services', services: [{ name: 'orders-ada', label: 'orders', phase: 'live' }], current: 'orders-ada', maxLines: 200_000 });
  await post({ type: 'begin', stream: 1, name: 'orders-ada' });
  await post({ type: 'state', state: 'reading', text: '' });
  await give(lines);
  await settled(lines.length);
}
const give = (lines: string[]): Promise<void> => post({ type: 'texts', stream: 1, texts: [lines.join('\n') + '\n'], skipped: 0 });
const quantile = (v: number[], q: number): number => [...v].sort((a, b) => a - b)[Math.min(v.length - 1, Math.floor(v.length * q))] ?? 0;

describe('the page', { skip }, () => {
  test('text stays text, and the policy is kept', async () => {
    await open([
      log(1, { text: '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>' }, null),
      log(2, { text: '\x1b[31mred\x1b[0m \x1b[48;2;1;2;3mback\x1b[0m main.go:12:3 https://example.com/' }, null),
      log(3, {}, { level: 'error', message: '<b>bold</b>', attrs: [['<i>k</i>', '<u>v</u>']] }),
    ]);
    assert.match(await text(), /<img src=x onerror/);
    assert.match(await text(), /<b>bold<\/b>/);
    assert.equal(await page.locator('.list :is(img, script, b, i, u)').count(), 0);
    assert.deepEqual(await page.evaluate(() => (window as unknown as { violations: string[] }).violations), []);
    assert.equal(await page.evaluate(() => 'hacked' in window), false);
    assert.match(await page.locator('.list span', { hasText: /^red$/ }).evaluate((e: HTMLElement) => e.style.color), /terminal-ansiRed/);
    await page.locator('a.link', { hasText: 'main.go:12:3' }).click();
    await page.locator('a.link', { hasText: 'example' }).click();
    assert.deepEqual(await page.evaluate(() => (window as unknown as { posted: { type: string }[] }).posted.filter((m) => m.type !== 'taken')), [
      { type: 'ready' }, { type: 'open', file: 'main.go', line: 12, column: 3 }, { type: 'url', url: 'https://example.com/' },
    ]);
    await page.close();
  });

  test('it follows, pauses when scrolled up, and comes back', async () => {
    await open(Array.from({ length: 500 }, (_, i) => log(i + 1)));
    assert.match(await text(), /order 500 placed/);
    await page.locator('.list').hover();
    await page.mouse.wheel(0, -600);
    await page.locator('.follow', { hasText: 'Follow' }).waitFor();
    await frames(5);
    const seen = await text();
    await give(Array.from({ length: 1234 }, (_, i) => log(i + 501)));
    await settled(1734);
    assert.equal(await text(), seen, 'what is read stays where it is');
    assert.equal(await page.locator('.jump').innerText(), '1,234 new lines');
    await page.locator('.jump').click();
    await frames(3);
    assert.match(await text(), /order 1734 placed/);
    assert.equal(await page.locator('.jump').isVisible(), false);
    await page.close();
  });

  test('lines that are thrown away at the top do not move what is read', async () => {
    await open(Array.from({ length: 2000 }, (_, i) => log(i + 1)));
    await post({ type: 'services', services: [], current: 'orders-ada', maxLines: 2000 });
    await page.locator('.follow').click();
    await page.locator('.list').evaluate((e) => (e.scrollTop = 1500 * 20));
    await frames(5);
    const seen = await text();
    await give(Array.from({ length: 1000 }, (_, i) => log(i + 2001)));
    await frames(20);
    assert.ok((await hook<number>('rows')) <= 2200);
    assert.equal(await text(), seen);
    await page.close();
  });

  test('by keyboard: find, go on, select, copy, open, close', async () => {
    await open([...Array.from({ length: 300 }, (_, i) => log(i + 1)), log(301, { text: 'needle one' }, null), ...Array.from({ length: 100 }, (_, i) => log(i + 302)), log(402, { text: 'the needle two' }, null)]);
    await page.locator('.list').focus();
    await page.keyboard.press('Control+f');
    await page.keyboard.type('needle');
    await page.locator('.count', { hasText: '2 of 2' }).waitFor();
    await page.keyboard.press('Enter');
    await page.locator('.count', { hasText: '1 of 2' }).waitFor();
    await frames(3);
    assert.equal(await page.locator('.found.now').innerText(), 'needle');
    assert.match(await text(), /needle one/);
    await page.keyboard.press('Shift+F3');
    await page.locator('.count', { hasText: '2 of 2' }).waitFor();
    await page.keyboard.press('Escape');
    await frames(2);
    assert.equal(await page.locator('.found').count(), 0);
    await page.keyboard.press('End');
    await page.keyboard.press('Shift+ArrowUp');
    await frames(2);
    assert.equal(await page.locator('.row[aria-selected=true]').count(), 2);
    assert.equal(await page.evaluate(() => {
      const d = new DataTransfer();
      document.activeElement!.dispatchEvent(new ClipboardEvent('copy', { clipboardData: d, bubbles: true, cancelable: true }));
      return d.getData('text/plain');
    }), '{"level":"INFO","msg":"order 401 placed","customer":"ada","total":"12.50"}\nthe needle two\n');
    await page.keyboard.press('ArrowRight');
    await page.locator('.detail').waitFor();
    assert.match(await page.locator('.detail').innerText(), /customer\s+ada\s+total\s+12\.50/);
    const active = await page.locator('.list').getAttribute('aria-activedescendant');
    assert.equal(await page.locator(`#${active}`).getAttribute('role'), 'option');
    await page.keyboard.press('ArrowLeft');
    await frames(2);
    assert.equal(await page.locator('.detail').count(), 0);
    await page.close();
  });

  test('filter, level and what is saved for the next time', async () => {
    await open([...Array.from({ length: 200 }, (_, i) => log(i + 1)), log(201, { text: 'bad' }, { level: 'error', message: 'refused' }), log(202, { text: 'odd' }, { level: 'warn', message: 'slow' })]);
    await page.locator('select.level').selectOption('4');
    await page.locator('.summary', { hasText: '2 of 202 lines' }).waitFor();
    await page.locator('input.filter').fill('BAD');
    await page.locator('.summary', { hasText: '1 of 202 lines' }).waitFor();
    await give([log(203, { text: 'bad again' }, { level: 'error', message: 'refused' }), log(204)]);
    await page.locator('.summary', { hasText: '2 of 204 lines' }).waitFor();
    await page.locator('input.filter').fill('nothing like it');
    await page.locator('.blank', { hasText: 'No line passes the filter' }).waitFor();
    await page.locator('input.filter').fill('bad');
    await page.locator('.summary', { hasText: '2 of 204 lines' }).waitFor();
    await page.reload();
    await begin([log(1), log(2, { text: 'bad' }, { level: 'fatal', message: 'x' })]);
    await page.locator('.summary', { hasText: '1 of 2 lines' }).waitFor();
    assert.equal(await page.locator('input.filter').inputValue(), 'bad');
    assert.equal(await page.locator('select.level').inputValue(), '4');
    await page.close();
  });

  test('100,000 lines', { timeout: 120_000 }, async (t) => {
    await open([]);
    const n = 100_000;
    const reset = (): Promise<void> => page.evaluate(() => {
      const w = window as unknown as { work: number[]; gaps: number[] };
      w.work = [];
      w.gaps = [];
    });
    const figures = async (what: string): Promise<{ work: number[]; gaps: number[] }> => {
      const f = await page.evaluate(() => {
        const w = window as unknown as { work: number[]; gaps: number[] };
        return { work: w.work, gaps: w.gaps };
      });
      t.diagnostic(`${what}: ${f.gaps.length} frames, ${quantile(f.gaps, 0.5).toFixed(1)} ms apart (99 %: ${quantile(f.gaps, 0.99).toFixed(1)}); the page's own work in a frame ${quantile(f.work, 0.5).toFixed(1)} ms (99 %: ${quantile(f.work, 0.99).toFixed(1)}, most ${Math.max(...f.work).toFixed(1)})`);
      return f;
    };
    // As the host does it: 64 KiB texts, at most two runs that have not been taken.
    const texts: string[] = [];
    for (let i = 1; i <= n;) {
      const lines: string[] = [];
      for (let size = 0; i <= n && size < 64 << 10; i++) size += lines[lines.push(log(i)) - 1]!.length + 1;
      texts.push(lines.join('\n') + '\n');
    }
    await reset();
    const took = await page.evaluate(async (all) => {
      const w = window as unknown as { posted: { type: string }[]; fairleadLogs: Record<string, () => number> };
      const start = performance.now();
      const base = w.posted.filter((m) => m.type === 'taken').length;
      let sent = 0;
      while (all.length > 0) {
        while (all.length > 0 && sent - (w.posted.filter((m) => m.type === 'taken').length - base) < 2) {
          window.postMessage({ type: 'texts', stream: 1, texts: all.splice(0, 4), skipped: 0 }, '*');
          sent++;
        }
        await new Promise((r) => setTimeout(r, 0));
      }
      while (w.fairleadLogs.queued!() > 0) await new Promise((r) => setTimeout(r, 5));
      return performance.now() - start;
    }, texts);
    await settled(n);
    const appending = await figures(`taking ${n} lines in ${(took / 1000).toFixed(1)} s while following`);
    assert.match(await text(), /order 100000 placed/);

    await reset();
    await page.evaluate(async () => {
      const list = document.querySelector('.list')!;
      for (let i = 0; i < 240; i++) {
        // A flight through all of it, then a slow read.
        list.scrollTop = i < 120 ? list.scrollHeight * (1 - i / 120) : list.scrollTop + 53;
        await new Promise((r) => requestAnimationFrame(r));
      }
    });
    const scrolling = await figures('scrolling');
    const elements = await hook<number>('elements');

    // 5,000 lines a second come in while it is read elsewhere, then while it follows.
    await reset();
    await page.evaluate(async (line) => {
      for (let i = 0; i < 60; i++) {
        window.postMessage({ type: 'texts', stream: 1, texts: [(line + '\n').repeat(83)], skipped: 0 }, '*');
        document.querySelector('.list')!.scrollTop += 31;
        await new Promise((r) => requestAnimationFrame(r));
      }
    }, log(n + 1));
    const both = await figures('scrolling while 83 lines come with each frame');

    await reset();
    const start = Date.now();
    await page.locator('input.filter').fill('order 99999 ');
    await page.locator('.summary', { hasText: /^1 of/ }).waitFor();
    t.diagnostic(`filtered in ${Date.now() - start} ms, 80 of which wait for the next key`);
    await figures('while filtering');
    await page.locator('input.filter').fill('');
    await page.locator('.summary', { hasText: /^10\d,\d+ lines/ }).waitFor();
    await reset();
    await page.locator('.list').focus();
    await page.keyboard.press('Control+f');
    await page.keyboard.type('order 77777 placed');
    await page.locator('.count', { hasText: '1 of 1' }).waitFor();
    await figures('while finding');
    const heap = await page.evaluate(() => (performance as unknown as { memory: { usedJSHeapSize: number } }).memory.usedJSHeapSize);
    t.diagnostic(`${elements} rows have elements; heap ${(heap / 2 ** 20).toFixed(0)} MiB`);

    assert.ok(elements < 60, `${elements} rows have elements`);
    assert.ok(heap < 300 * 2 ** 20, `heap ${heap}`);
    // What a frame costs is told above, and is the machine's; that the work is shared out among frames is not.
    for (const [what, f] of Object.entries({ appending, scrolling, both })) {
      assert.ok(f.work.length > 20, `${what}: all of it in ${f.work.length} frames`);
    }
    await page.close();
  });
});
