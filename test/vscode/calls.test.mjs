// A call that is not granted, in the real workbench: a squiggle on its line, the quick fix, the form as it comes, and the same call works.
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { Fairlead } from './harness/fairlead.mjs';
import { fairlead, here, out } from './harness/machine.mjs';
import { onMachine } from './harness/test.mjs';
import { eventually, freePort, patience } from './harness/wait.mjs';
import { CodeServer, Workbench } from './harness/workbench.mjs';

const billing = `package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("POST /v1/charges/{id}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "<h1>charged %s</h1>", r.PathValue("id")) })
	http.HandleFunc("GET /v1/balance", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<h1>7 crowns</h1>") })
	panic(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
`;

const orders = (port) => `package main

import (
	"io"
	"net/http"
	"os"
)

// charge takes the money for an order.
func charge(order string) (*http.Response, error) {
	return http.Post(os.Getenv("BILLING_URL")+"/v1/charges/"+order, "text/plain", nil)
}

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		resp, err := charge("42")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.Header().Set("Content-Type", "text/html")
		io.Copy(w, resp.Body)
	})
	http.HandleFunc("/balance", func(w http.ResponseWriter, r *http.Request) {
		resp, err := http.Get(os.Getenv("BILLING_URL") + "/v1/balance")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		io.Copy(w, resp.Body)
	})
	panic(http.ListenAndServe("127.0.0.1:${port}", nil))
}
`;

/**
 * desktop is an agent whose editor says that it shows pages beside the code, as VS Code on a desktop does: a VS Code in a browser does
 * not, since its own pages could be any site's. The two words are as long as each other, so that the lengths of messages stay.
 */
function desktop(m) {
	const file = m.path('desktop.mjs');
	fs.writeFileSync(file, `#!${process.execPath}
import { spawn } from 'node:child_process';
const proc = spawn(${JSON.stringify(fairlead)}, process.argv.slice(2), { stdio: ['pipe', 'inherit', 'inherit'] });
process.stdin.on('data', (b) => proc.stdin.write(Buffer.from(b.toString('latin1').replace('"beside":false', '"beside":true '), 'latin1')));
process.stdin.on('end', () => proc.stdin.end());
proc.on('exit', (code) => process.exit(code ?? 1));
for (const s of ['SIGTERM', 'SIGINT']) process.on(s, () => proc.kill(s));
`, { mode: 0o755 });
	return file;
}

/** Neovim is one without a screen, with its own language client, asked by its socket. */
class Neovim {
	constructor(m, dir, file) {
		this.socket = m.path('nvim.sock');
		const proc = spawn('nvim', ['--headless', '--listen', this.socket, '-u', path.join(here, 'neovim.lua'), '-i', 'NONE', '-n', file], { cwd: dir, env: { ...m.env, FAIRLEAD: fairlead }, stdio: 'ignore' });
		const ended = once(proc, 'exit');
		m.cleanup(async () => { proc.kill('SIGKILL'); await ended; });
	}

	/** lua runs a function's body; what it returns must be a string. */
	lua(body) {
		if (!fs.existsSync(this.socket)) return '[]';
		const expr = `luaeval('(function() ${body.replaceAll('\'', '\'\'').replace(/\s+/g, ' ')} end)()')`;
		const { status, stdout, stderr } = spawnSync('nvim', ['--server', this.socket, '--remote-expr', expr], { encoding: 'utf8' });
		if (status !== 0) throw new Error(`nvim: ${stdout}${stderr}`);
		return stdout + stderr; // 0.7 writes to the latter
	}

	diagnostics() { return JSON.parse(this.lua('return vim.fn.json_encode(vim.tbl_map(function(d) return { lnum = d.lnum, message = d.message } end, vim.diagnostic.get(0)))') || '[]'); }

	messages() { return this.lua('return vim.fn.execute("messages")'); }

	/** fix takes the code action of a title on a line. */
	fix(line, title) {
		this.lua(`vim.ui.select = function(items, _, chosen)
			for i, item in ipairs(items) do if item[2].title == "${title}" then chosen(item, i) end end
		end
		vim.api.nvim_win_set_cursor(0, { ${line + 1}, 0 })
		vim.lsp.buf.code_action()
		return ""`);
	}
}

onMachine('a call that is not granted', 'calls', async (m, step) => {
	const messages = [];
	const channel = http.createServer(async (req, res) => {
		let body = '';
		for await (const chunk of req) body += chunk;
		messages.push(body);
		res.end('ok');
	});
	await new Promise((done) => channel.listen(0, '127.0.0.1', done));
	const dir = m.path('shop');
	const write = (name, text) => {
		fs.mkdirSync(path.dirname(path.join(dir, name)), { recursive: true });
		fs.writeFileSync(path.join(dir, name), text);
	};
	const port = await freePort();
	write('go.mod', 'module example.com/shop\n\ngo 1.26\n');
	write('orders/main.go', orders(port));
	write('billing/main.go', billing);
	write('fairlead.yaml', `version: 1
services:
  orders:
    main: ./orders
    env: {BILLING_URL: "http://{{billing}}"}
    dependencies: {billing: shared}
  billing:
    main: ./billing
    env: {PORT: "${await freePort()}"}
`);
	const git = (...args) => execFileSync('git', args, { cwd: dir, env: m.env, stdio: 'pipe', encoding: 'utf8' });
	git('config', '--global', 'user.name', 'Mira');
	git('config', '--global', 'user.email', 'mira@example.com');
	const { remote } = JSON.parse(execFileSync(fairlead, ['registry', '--json'], { cwd: dir, env: m.env, encoding: 'utf8' }));
	const clone = m.path('registry');
	git('clone', '--quiet', remote, clone);
	for (const [name, text] of Object.entries({
		'services/billing.yaml': 'version: 1\nname: billing\nteam: payments\naccess: open\ndescription: takes money\n',
		'teams/payments.yaml': `version: 1\nname: payments\nnotify:\n  - {webhook: "http://127.0.0.1:${channel.address().port}/team", secret: team}\n`,
	})) {
		fs.mkdirSync(path.dirname(path.join(clone, name)), { recursive: true });
		fs.writeFileSync(path.join(clone, name), text);
	}
	const secrets = path.join(m.env.XDG_STATE_HOME ?? path.join(m.env.HOME, '.local', 'state'), 'fairlead', 'secrets');
	fs.mkdirSync(secrets, { recursive: true, mode: 0o700 });
	fs.writeFileSync(path.join(secrets, 'team'), 'a secret of the team', { mode: 0o600 });
	git('-C', clone, 'add', '-A');
	git('-C', clone, 'commit', '--quiet', '-m', 'services');
	git('-C', clone, 'push', '--quiet', 'origin', 'HEAD');

	const wb = await Workbench.open(m, await CodeServer.start(m, { extra: { 'fairlead.openBrowser': 'always' }, agent: desktop(m) }), dir);
	const f = new Fairlead(wb);
	let site;
	try {
		await step('the service says itself what is missing', async () => {
			await wb.openFile('orders/main.go');
			await f.state(/Fairlead/);
			site = await wb.popup(() => f.runButton.click());
			await eventually('the refusal', async () => {
				await site.reload();
				return (await site.locator('body').innerText({ timeout: 2000 })).includes('orders may not call POST /v1/charges/* of billing yet');
			});
			await site.screenshot({ path: path.join(out, 'calls-refused.png') });
			await wb.page.bringToFront();
		});
		let form, shown = '';
		/** beside waits until what f does has opened the form beside the code, and returns its address. */
		const beside = async (open) => {
			await open();
			return eventually('the form beside the code', async () => {
				for (const frame of wb.page.frames()) {
					const src = await frame.locator('.content iframe').first().getAttribute('src', { timeout: 500 }).catch(() => '');
					if (!src?.includes('/sign-in/to/') || src === shown) continue;
					const u = new URL(src);
					assert.match(Buffer.from(u.pathname.split('/').pop(), 'base64url').toString(), /^\/request\?callee=billing&caller=orders&.*method=POST\+%2Fv1%2Fcharges%2F%2A/);
					shown = src;
					assert.equal(await wb.page.locator('.editor-group-container').count(), 2);
					return `${u.origin}${u.pathname}${u.hash}`;
				}
			});
		};
		await step('its line has a squiggle, and a fix that opens the form', async () => {
			await wb.squiggle().first().waitFor();
			await wb.openFile('orders/main.go');
			await wb.palette('Go to Next Problem in Files');
			const peek = wb.page.locator('.marker-widget', { hasText: /orders may not call POST \/v1\/charges\/\* of billing yet/ }).first();
			await peek.waitFor();
			await wb.shot('squiggle', { readme: 'vscode-denied' });
			// The editor moves when it goes, which would shut the menu of fixes.
			await wb.page.locator('.peekview-widget .codicon-close').first().click();
			await peek.waitFor({ state: 'detached' });
			await wb.focusEditor();
			await wb.page.keyboard.press('Control+.');
			const fix = wb.page.locator('.action-widget .monaco-list-row', { hasText: 'Request access to POST /v1/charges/* of billing' }).first();
			await fix.waitFor();
			await wb.shot('fix');
			const address = await beside(() => fix.click());
			await wb.shot('beside');
			// The portal lets no web page frame it, and this VS Code is one: the form itself is filled in beside it.
			form = await wb.ctx.newPage();
			form.setDefaultTimeout(patience);
			await form.goto(address);
		});
		await step('the tree, the status bar and the log line lead there too', async () => {
			await wb.page.bringToFront();
			await f.environments();
			await beside(() => f.act('orders may not call', 'Request Access'));
			await beside(() => f.choose('Request Access to POST /v1/charges/*', /live/));
			const logs = await f.logs();
			await logs.shows('POST /v1/charges/* of billing is not granted: the call was refused');
			await wb.shot('log-line');
			await beside(() => logs.link('Request access...').click());
			await form.bringToFront();
		});
		await step('the form is filled in: one click grants it', async () => {
			await form.locator('#request').waitFor();
			assert.ok(await form.getByLabel(/POST \/v1\/charges\/\*/).isChecked());
			assert.ok(await form.getByLabel(/shared, stable copy/).isChecked());
			await form.screenshot({ path: path.join(out, 'calls-form.png') });
			await form.locator('#send').click();
			await form.getByText(/granted/i).first().waitFor();
			await wb.closePopup(form);
		});
		await step('the squiggle is gone and the call works, without a restart', async () => {
			await wb.squiggle().first().waitFor({ state: 'detached' });
			await site.bringToFront();
			await eventually('the charge', async () => {
				await site.reload();
				return (await site.locator('body').innerText({ timeout: 2000 })).includes('charged 42');
			});
			await wb.page.bringToFront();
			await wb.shot('granted');
		});
		await step('the team has heard of it', async () => {
			await eventually('a message', () => messages.length === 1);
			assert.match(messages[0], /orders/);
			assert.match(messages[0], /POST \/v1\/charges\/\*/);
		});
		await step('the same from Neovim, whose client can show no page, and a browser', async () => {
			const vim = new Neovim(m, dir, 'orders/main.go');
			const balance = async () => (await fetch(`http://127.0.0.1:${port}/balance`)).text();
			assert.match(await balance(), /orders may not call GET \/v1\/balance of billing yet/);
			const found = await eventually('the diagnostic', () => vim.diagnostics().find((d) => d.message.startsWith('orders may not call GET /v1/balance of billing yet')));
			assert.equal(found.lnum + 1, wb.lineOf('orders/main.go', '/v1/balance'));
			vim.fix(found.lnum, 'Request access to GET /v1/balance of billing');
			const address = await eventually('the form\'s address', () => /request access at (http:\/\/\S+)/.exec(vim.messages())?.[1]);
			const page = await wb.ctx.newPage();
			page.setDefaultTimeout(patience);
			await page.goto(address);
			assert.ok(await page.getByLabel('GET /v1/balance').isChecked());
			await page.locator('#send').click();
			await page.getByText(/granted/i).first().waitFor();
			await eventually('no diagnostic', () => vim.diagnostics().length === 0);
			assert.match(await balance(), /7 crowns/);
		});
	} finally {
		channel.closeAllConnections();
		channel.close();
	}
});
