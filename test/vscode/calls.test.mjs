// A call that is not granted, in the real workbench: a squiggle on its line, the quick fix, the form as it comes, and the same call works.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { Fairlead } from './harness/fairlead.mjs';
import { fairlead, out } from './harness/machine.mjs';
import { onMachine } from './harness/test.mjs';
import { eventually, freePort } from './harness/wait.mjs';
import { CodeServer, Workbench } from './harness/workbench.mjs';

const billing = `package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("POST /v1/charges/{id}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "<h1>charged %s</h1>", r.PathValue("id")) })
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
	panic(http.ListenAndServe("127.0.0.1:${port}", nil))
}
`;

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

	const wb = await Workbench.open(m, await CodeServer.start(m, { extra: { 'fairlead.openBrowser': 'always' } }), dir);
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
		let form;
		await step('its line has a squiggle, and a fix that opens the form', async () => {
			await wb.squiggle().first().waitFor();
			await wb.openFile('orders/main.go');
			await wb.palette('Go to Next Problem in Files');
			await wb.page.locator('.marker-widget', { hasText: /orders may not call POST \/v1\/charges\/\* of billing yet/ }).first().waitFor();
			await wb.shot('squiggle', { readme: 'vscode-denied' });
			await wb.page.keyboard.press('Escape');
			await wb.page.keyboard.press('Control+.');
			const fix = wb.page.locator('.action-widget .monaco-list-row', { hasText: 'Request access to POST /v1/charges/* of billing' }).first();
			await fix.waitFor();
			await wb.shot('fix');
			form = await wb.popup(() => fix.click());
			// code-server opens ports of its machine by a proxy of its own, whose Host and paths the portal refuses, as it refuses all but
			// its own. A VS Code on this machine opens the address itself.
			await form.waitForURL(/\/proxy\/\d+\//);
			await form.goto(form.url().replace(/^http:\/\/[^/]*\/proxy\/(\d+)\//, 'http://127.0.0.1:$1/'));
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
	} finally {
		channel.closeAllConnections();
		channel.close();
	}
});
