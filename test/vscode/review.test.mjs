// The draft review in the real workbench, on a real Gitea: press, pick, tick a reviewer, and the draft is open.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { Fairlead } from './harness/fairlead.mjs';
import { Gitea } from './harness/gitea.mjs';
import { onMachine } from './harness/test.mjs';
import { eventually, freePort } from './harness/wait.mjs';
import { CodeServer, Workbench } from './harness/workbench.mjs';

const main = (port) => `package main

import (
	"fmt"
	"net/http"

	"example.com/shop/orders"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, orders.Total(3, 14)) })
	panic(http.ListenAndServe("127.0.0.1:${port}", nil))
}
`;

const total = (comment) => `package orders

// Total is ${comment}
func Total(items, price int) int {
	return items * price
}
`;

const template = `## What

## Ticket

## How it was tested

- [ ] I have read the contributing guide
`;

onMachine('a draft review', 'review', async (m, step, t) => {
	const extra = { 'git.enabled': true, 'git.autofetch': false, 'fairlead.openBrowser': 'never', 'fairlead.logs.showOnRun': false };
	const [gitea, server] = await Promise.all([Gitea.start(m, t), CodeServer.start(m, { extra })]);
	if (!gitea) return;
	const dir = m.path('shop'), branch = 'SHOP-41-round-totals';
	const git = (...args) => execFileSync('git', ['-C', dir, ...args], { env: m.env, stdio: 'pipe', encoding: 'utf8' }).trim();
	const write = (name, text) => {
		fs.mkdirSync(path.dirname(path.join(dir, name)), { recursive: true });
		fs.writeFileSync(path.join(dir, name), text);
	};
	let day = 60;
	const commit = (name, full, message) => {
		const date = new Date(Date.now() - day-- * 86_400_000).toISOString();
		git('add', '-A');
		execFileSync('git', ['-C', dir, 'commit', '--quiet', '-m', message], { stdio: 'pipe', env: {
			...m.env, GIT_AUTHOR_NAME: full, GIT_AUTHOR_EMAIL: `${name}@acme.dev`, GIT_COMMITTER_NAME: full, GIT_COMMITTER_EMAIL: `${name}@acme.dev`, GIT_AUTHOR_DATE: date, GIT_COMMITTER_DATE: date,
		} });
	};
	const people = { mira: 'Mira Lund', jo: 'Jo Park', sam: 'Sam Reed', ines: 'Ines Costa' };
	const token = await gitea.user('mira', people.mira, { scopes: ['write:repository'] });
	await gitea.call('POST', '/admin/users/mira/repos', { name: 'shop' });
	for (const name of ['jo', 'sam', 'ines']) {
		await gitea.user(name, people[name], { hidden: name === 'sam' }); // he is known by his commits
		await gitea.call('PUT', `/repos/mira/shop/collaborators/${name}`, { permission: 'write' });
	}
	// As a developer's machine has it: git knows who she is, and its helper has the token, which is in no address.
	fs.writeFileSync(m.path('home', '.git-credentials'), `${gitea.url.replace('http://', `http://mira:${token}@`)}\n`, { mode: 0o600 });
	fs.writeFileSync(m.path('home', '.gitconfig'), '[user]\n\tname = Mira Lund\n\temail = mira@acme.dev\n[credential]\n\thelper = store\n');
	fs.mkdirSync(dir);
	git('init', '--quiet', '--initial-branch=main');
	write('go.mod', 'module example.com/shop\n\ngo 1.24\n');
	write('main.go', main(await freePort()));
	write('orders/total.go', total('what an order costs.'));
	write('fairlead.yaml', 'version: 1\nreview:\n  ticket: https://acme.example.com/browse/{key}\n');
	write('.gitea/pull_request_template.md', template);
	write('.gitea/CODEOWNERS', 'orders/.* @ines\n');
	commit('jo', people.jo, 'shop: first');
	write('orders/shipping.go', 'package orders\n\n// Shipping is what its way costs.\nconst Shipping = 490\n');
	commit('ines', people.ines, 'orders: what the way of an order costs');
	write('orders/total.go', total('what an order costs, in cents.'));
	commit('sam', people.sam, 'orders: say what Total is in');
	write('orders/total.go', total('what an order costs, in cents, without what its way costs.'));
	commit('mira', people.mira, 'orders: say what Total leaves out\n\nReviewed-by: Sam Reed <sam@acme.dev>');
	git('remote', 'add', 'origin', `${gitea.url}/mira/shop.git`);
	git('push', '--quiet', '-u', 'origin', 'main');
	git('remote', 'set-head', 'origin', 'main');
	git('switch', '--quiet', '--create', branch);
	write('notes.txt', 'of my own\n');
	const tip = git('rev-parse', 'HEAD');

	const wb = await Workbench.open(m, server, dir);
	const f = new Fairlead(wb);
	await step('the change runs in its environment', async () => {
		await wb.openFile('main.go');
		await f.state('Fairlead: run');
		await f.runButton.click();
		await f.state(/shop: live/);
		await wb.openFile('total.go');
		await wb.replaceLine(wb.lineOf('orders/total.go', 'return'), '\treturn (items*price + 5) / 10 * 10');
		await f.state(/shop: live in .*s/);
	});
	await step('the button of Source Control shows what is not committed, with what git knows ticked', async () => {
		await wb.palette('Source Control: Focus on Changes View');
		await f.reviewButton.click();
		await f.step(`Create Draft Review: ${branch} for main on Gitea (mira/shop)`, 'Which of these are committed');
		assert.deepEqual(await f.picks(), { 'orders/total.go': true, 'notes.txt': false });
		await f.accept();
		await f.step('Create Draft Review', /message of the commit of orders\/total\.go/);
		assert.equal(await wb.quick.locator('input.input').inputValue(), 'orders: change Total');
		await wb.page.keyboard.insertText('orders: round totals to ten cents');
		await f.accept();
	});
	await step('reviewers are suggested, each with why, and none is ticked', async () => {
		await f.step('Create Draft Review', 'Who is asked for a review?');
		const picks = await f.picks();
		assert.deepEqual(Object.values(picks), [false, false, false], JSON.stringify(picks));
		assert.match(Object.keys(picks)[0], /^Ines Costa/);
		assert.match(await f.pickRow('Ines Costa').innerText(), /ines · must be asked[^]*CODEOWNERS/);
		assert.match(await f.pickRow('Sam Reed').innerText(), /sam\n?[^]*review/);
	});
	await step('what changes while it is looked at is not done blindly', async () => {
		write('more.txt', 'meanwhile\n');
		await f.accept();
		const changed = wb.notification('something has changed in the work tree since you looked');
		await changed.locator('.monaco-button', { hasText: 'Look Again' }).click();
		await f.step('Create Draft Review', 'Which of these are committed');
		assert.deepEqual(await f.picks(), { 'orders/total.go': true, 'notes.txt': false, 'more.txt': false });
		assert.equal(git('rev-parse', 'HEAD'), tip);
		assert.deepEqual((await gitea.call('GET', '/repos/mira/shop/branches')).map((b) => b.name), ['main']);
	});
	await step('the draft is open, as it was agreed to', async () => {
		await f.accept();
		await f.step('Create Draft Review', /message of the commit/);
		await wb.quick.locator('input.input').fill('orders: round totals to ten cents');
		await f.accept();
		await f.step('Create Draft Review', 'Who is asked for a review?');
		await f.pickRow('Sam Reed').click();
		assert.equal((await f.picks())['Sam Reed'], true);
		await f.reviewTitle.locator('.title').first().hover(); // the buttons show while the pointer is there
		await wb.shot('reviewers', { readme: 'vscode-review', clip: { x: 0, y: 0, width: 1020, height: 450 } });
		const page = await wb.popup(() => f.accept());
		// code-server opens ports of its machine by a proxy of its own.
		await page.waitForURL(new RegExp(`/proxy/${new URL(gitea.url).port}/mira/shop/pulls/1$`));
		await wb.closePopup(page);
		const pull = await gitea.call('GET', '/repos/mira/shop/pulls/1');
		assert.equal(pull.title, 'WIP: orders: round totals to ten cents');
		assert.equal(pull.draft, true);
		assert.deepEqual([pull.base.ref, pull.head.ref, pull.head.sha], ['main', branch, git('rev-parse', 'HEAD')]);
		assert.deepEqual(pull.requested_reviewers.map((r) => r.login), ['sam']);
		const [what, ticket, tested] = ['## What', '## Ticket', '## How it was tested'].map((h) => pull.body.indexOf(h));
		assert.ok(what >= 0 && what < ticket && ticket < tested, pull.body);
		assert.match(pull.body.slice(what, ticket), /orders: round totals to ten cents/);
		assert.match(pull.body.slice(ticket, tested), /\[SHOP-41\]\(https:\/\/acme\.example\.com\/browse\/SHOP-41\)/);
		assert.match(pull.body.slice(tested), /Run as `shop-\S+` on this machine: generation \d+[^]*- \[ \] I have read the contributing guide/);
		assert.equal(git('show', '--name-only', '--format=%s', 'HEAD'), 'orders: round totals to ten cents\n\norders/total.go');
		assert.equal(git('status', '--porcelain'), '?? more.txt\n?? notes.txt');
	});
	await step('its service shows it, and a second press is of the same review', async () => {
		await f.environments();
		await f.row('Draft review #1').waitFor();
		await wb.shot('tree');
		await f.command('Create Draft Review');
		await f.step(`Update Review #1: ${branch} for main`, 'Which of these are committed');
		await wb.page.keyboard.press('Escape');
		await wb.quick.waitFor({ state: 'hidden' });
		assert.equal((await gitea.call('GET', '/repos/mira/shop/pulls?state=all')).length, 1);
		await f.command('Stop');
		await f.state('Fairlead: run');
		await eventually('the service is gone', () => m.services().length === 0);
	});
});
