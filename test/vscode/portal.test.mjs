// The portal in a real browser: without JavaScript, by the keyboard alone, in both colour schemes, and read by axe.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHmac } from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { out, repository, tools } from './harness/machine.mjs';
import { onMachine } from './harness/test.mjs';
import { eventually } from './harness/wait.mjs';

const require = createRequire(path.join(tools, 'package.json'));
const { chromium } = require('playwright-core');
const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const link = '/request?caller=checkout&callee=billing&method=%2Fbilling.v1.Billing%2FCharge&environment=mira-checkout';

const files = {
	'services/checkout.yaml': 'version: 1\nname: checkout\nteam: checkout\ndescription: takes orders\n',
	'services/billing.yaml': `version: 1
name: billing
team: payments
description: takes money
repository: https://git.example.com/shop/billing
endpoints:
  - {method: /billing.v1.Billing/Charge, description: Takes money for an order}
  - {method: /billing.v1.Billing/Refund, description: Gives it back}
  - {method: GET /v1/invoices/*}
${Array.from({ length: 12 }, (_, i) => `  - {method: GET /v1/reports/report-${i}}`).join('\n')}
`,
	'services/ledger.yaml': 'version: 1\nname: ledger\nteam: payments\naccess: review\ndescription: keeps books\n',
	'teams/checkout.yaml': 'version: 1\nname: checkout\n',
	'teams/payments.yaml': 'version: 1\nname: payments\n',
};

/** shown are the pages that a picture is kept of. */
const shown = ['form', 'result', 'review', 'service'];

/** registry pushes the files into a bare repository. */
function registry(m) {
	const bare = m.path('registry.git'), work = m.path('registry');
	const git = (...args) => execFileSync('git', ['-c', 'user.name=Jo', '-c', 'user.email=jo@example.com', ...args], { env: m.env, stdio: 'pipe' });
	git('init', '--quiet', '--bare', '--initial-branch=main', bare);
	git('init', '--quiet', '--initial-branch=main', work);
	for (const [name, text] of Object.entries(files)) {
		fs.mkdirSync(path.dirname(path.join(work, name)), { recursive: true });
		fs.writeFileSync(path.join(work, name), text);
	}
	git('-C', work, 'add', '-A');
	git('-C', work, 'commit', '--quiet', '-m', 'by hand');
	git('-C', work, 'push', '--quiet', bare, 'HEAD:main');
	git('config', '--global', 'user.name', 'Mira');
	git('config', '--global', 'user.email', 'mira@example.com');
	return bare;
}

onMachine('the portal', 'portal', async (m, step, t) => {
	const messages = [];
	const receiver = http.createServer(async (req, res) => {
		let body = '';
		for await (const part of req) body += part;
		messages.push({ body, id: req.headers['fairlead-id'], time: req.headers['fairlead-timestamp'], signature: req.headers['fairlead-signature'] });
		res.end();
	});
	await new Promise((done) => receiver.listen(0, '127.0.0.1', done));
	m.cleanup(() => receiver.close());
	files['teams/payments.yaml'] += `notify:\n  - {webhook: "http://127.0.0.1:${receiver.address().port}/", secret: payments-hook}\n`;
	m.env.FAIRLEAD_SECRET_PAYMENTS_HOOK = 's3cret';
	const bare = registry(m);
	// What starts browsers here is a script that writes down what it was given.
	fs.mkdirSync(m.path('bin'));
	fs.writeFileSync(m.path('bin', 'xdg-open'), `#!/bin/sh\nprintf '%s\\n' "$@" > '${m.path('opened')}'\n`, { mode: 0o755 });
	m.env.PATH = `${m.path('bin')}:${m.env.PATH}`;
	const started = m.run(m.root, 'portal', '--at', bare, link);
	m.cleanup(async () => { started.proc.kill('SIGINT'); await started.ended; });
	const url = await eventually('the portal says where it is', () => /portal +(http:\/\/127\.0\.0\.1:\d+)/.exec(started.text)?.[1]);
	const opened = await eventually('the browser is started', () => fs.existsSync(m.path('opened')) && fs.readFileSync(m.path('opened'), 'utf8').trim());

	const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, env: m.env, args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'] });
	m.cleanup(() => browser.close());
	const page = await (await browser.newContext({ viewport: { width: 1100, height: 1100 } })).newPage();
	const refused = [];
	page.on('console', (c) => { if (c.type() === 'error' && /Content Security Policy/.test(c.text())) refused.push(c.text()); });
	fs.mkdirSync(out, { recursive: true });

	/** read has axe read a page in both schemes, once narrow. */
	const read = async (p, name) => {
		await p.evaluate(axe);
		for (const [scheme, width] of [['light', 1100], ['dark', 380]]) {
			await p.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' });
			await p.setViewportSize({ width, height: 1100 });
			// Most rules do not see colours and widths.
			const rules = scheme === 'light' ? ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] : ['color-contrast', 'target-size', 'scrollable-region-focusable'];
			const { violations } = await p.evaluate((runOnly) => globalThis.axe.run(document, { runOnly }), rules);
			if (shown.includes(name)) {
				const file = path.join(out, `portal-${name}-${scheme}.png`);
				await p.screenshot({ path: file, fullPage: true });
				if (name === 'form' && scheme === 'light' && process.env.FAIRLEAD_TEST_PICTURES === '1') fs.copyFileSync(file, path.join(repository, 'docs/images/portal-form.png'));
			}
			assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(' ')}`), [], `${name}, ${scheme}, ${width}`);
			assert.equal(await p.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true, `${name} is wider than ${width}`);
		}
		await p.setViewportSize({ width: 1100, height: 1100 });
	};

	await step('a browser opens the form, signed in, by a file that others cannot read', async () => {
		assert.match(opened, /^\/.*\.html$/);
		assert.equal(fs.statSync(opened).mode & 0o777, 0o600);
		await page.goto(`file://${opened}`);
		await page.waitForURL(url + link);
		await page.getByRole('heading', { level: 1, name: /checkout.*calls.*billing/ }).waitFor();
		const [cookie] = await page.context().cookies();
		assert.equal(cookie.sameSite, 'Strict');
		assert.equal(cookie.httpOnly, true);
		// Its code is used up.
		const other = await (await browser.newContext()).newPage();
		await other.goto(`file://${opened}`);
		await other.getByRole('alert').getByText('That code is not valid').waitFor();
		await read(other, 'sign-in');
		await other.context().close();
	});

	await step('what is wrong is read first', async () => {
		const charge = page.getByRole('checkbox', { name: /Charge/ });
		assert.equal(await charge.isChecked(), true);
		await read(page, 'form');
		await charge.uncheck();
		await page.getByRole('button', { name: 'Grant access' }).click();
		const fault = page.getByRole('alert');
		await fault.getByText('Tick at least one method.').waitFor();
		assert.equal(await fault.evaluate((e) => e === document.activeElement), true);
		assert.match(await page.title(), /^Error: /);
		await read(page, 'faults');
	});

	await step('the keyboard alone', async () => {
		await page.goto(url + link);
		const reach = async (what) => {
			for (let i = 0; i < 60; i++) {
				await page.keyboard.press('Tab');
				if (await what.evaluate((e) => e === document.activeElement)) return;
			}
			throw new Error(`the keyboard does not reach ${what}`);
		};
		const filter = page.getByLabel('Filter');
		await reach(filter);
		await page.keyboard.type('refund');
		await page.getByRole('status').getByText('2 of 15 methods').waitFor(); // and what is ticked
		const refund = page.getByRole('checkbox', { name: /Refund/ });
		await reach(refund);
		await page.keyboard.press('Space');
		assert.equal(await refund.isChecked(), true);
		const send = page.getByRole('button', { name: 'Grant access' });
		await reach(send);
		assert.notEqual(await send.evaluate((e) => getComputedStyle(e).outlineStyle), 'none');
		await page.keyboard.press('Enter');
		await page.getByRole('heading', { name: 'Granted' }).waitFor();
		const log = execFileSync('git', ['-C', bare, 'log', '-1', '--format=%an <%ae>%n%B', 'main'], { env: m.env, encoding: 'utf8' });
		assert.match(log, /^Mira <mira@example.com>\ncheckout: call billing\n[^]*Method: \/billing\.v1\.Billing\/Charge\nMethod: \/billing\.v1\.Billing\/Refund\n/);
		await read(page, 'result');
		const told = await eventually('the callee\'s team hears of it', () => messages[0]);
		assert.equal(told.signature, `v1=${createHmac('sha256', 's3cret').update(`${told.id}.${told.time}.${told.body}`).digest('hex')}`);
		assert.deepEqual(JSON.parse(told.body).methods, ['/billing.v1.Billing/Charge', '/billing.v1.Billing/Refund']);
		assert.equal(JSON.parse(told.body).link, page.url());
	});

	await step('every other page', async () => {
		for (const [name, where] of Object.entries({ services: '/', service: '/services/billing', choose: '/request', review: '/request?caller=checkout&callee=ledger&method=GET+/v1/entries', ungoverned: '/request?caller=checkout&callee=weather', problem: '/nowhere' })) {
			await page.goto(url + where);
			await read(page, name);
		}
		assert.deepEqual(refused, []);
	});

	await step('without JavaScript', async () => {
		const again = m.run(m.root, 'portal', '--at', bare, '--print');
		m.cleanup(async () => { again.proc.kill('SIGINT'); await again.ended; });
		const code = await eventually('it prints a code', () => /code +([A-Z2-7]+)/.exec(again.text)?.[1]);
		const where = /portal +(http:\/\/[\d.:]+)/.exec(again.text)[1];
		const plain = await (await browser.newContext({ javaScriptEnabled: false })).newPage();
		await plain.goto(`${where}/request?caller=checkout&callee=ledger&method=GET+/v1/entries`);
		await plain.getByLabel('Code').fill(code.toLowerCase());
		await plain.getByRole('button', { name: 'Sign in' }).click();
		await plain.getByText('ledger is reviewed by its owners, team payments').waitFor();
		await plain.getByLabel(/^Reason/).fill('the books are read');
		await plain.getByLabel(/A fresh copy/).check();
		await plain.getByRole('button', { name: 'Send for review' }).click();
		await plain.getByRole('heading', { name: 'Sent for review' }).waitFor();
		assert.match(execFileSync('git', ['-C', bare, 'branch', '--list'], { env: m.env, encoding: 'utf8' }), /fairlead\/checkout-ledger-/);
		await plain.context().close();
	});

	await step('an editor in a browser frames it', async () => {
		const site = http.createServer((_, res) => res.setHeader('Content-Type', 'text/html').end('<title>editor</title>'));
		await new Promise((done) => site.listen(0, '127.0.0.1', done));
		m.cleanup(() => site.close());
		const origin = `http://localhost:${site.address().port}`; // another site than 127.0.0.1
		const framed = m.run(m.root, 'portal', '--at', bare, '--print', '--frame-ancestor', origin);
		m.cleanup(async () => { framed.proc.kill('SIGINT'); await framed.ended; });
		const code = await eventually('it prints a code', () => /code +([A-Z2-7]+)/.exec(framed.text)?.[1]);
		const where = /portal +(http:\/\/[\d.:]+)/.exec(framed.text)[1];
		const editor = await (await browser.newContext()).newPage();
		await editor.goto(origin);
		const to = '/request?caller=checkout&callee=billing&method=GET+/v1/invoices/*';
		await editor.evaluate((src) => document.body.append(Object.assign(document.createElement('iframe'), { src, width: 800, height: 900 })), `${where}/sign-in?to=${encodeURIComponent(to)}#${code}`);
		const frame = editor.frameLocator('iframe');
		await frame.getByRole('button', { name: 'Grant access' }).click();
		await frame.getByRole('heading', { name: 'Granted' }).waitFor();
		// What signs in there signs in nowhere else, and the code is not in the history.
		assert.deepEqual((await editor.context().cookies()).map((c) => [c.name, c.sameSite, c.httpOnly, c.secure]), [['fairlead-framed', 'None', true, true]]);
		await editor.goto(where);
		await editor.getByRole('heading', { name: 'Sign in' }).waitFor();
		await editor.context().close();
	});

	await step('no page of another site frames it', async () => {
		const site = http.createServer((_, res) => res.setHeader('Content-Type', 'text/html').end(`<title>evil</title><iframe src="${url}${link}"></iframe>`));
		await new Promise((done) => site.listen(0, '127.0.0.1', done));
		m.cleanup(() => site.close());
		const evil = await page.context().newPage();
		const told = evil.waitForEvent('console', { predicate: (c) => /frame-ancestors/.test(c.text()) });
		await evil.goto(`http://localhost:${site.address().port}/`);
		await told;
		await evil.close();
	});
	t.diagnostic(`pictures in ${out}`);
});
