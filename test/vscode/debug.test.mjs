import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { Namespace } from './harness/cluster.mjs';
import { Debugger } from './harness/debugger.mjs';
import { debugLoop } from './harness/debugloop.mjs';
import { Fairlead } from './harness/fairlead.mjs';
import { cluster } from './harness/machine.mjs';
import { aTest, debugged, writeService } from './harness/service.mjs';
import { onCluster, onMachine } from './harness/test.mjs';
import { freePort } from './harness/wait.mjs';
import { CodeServer, Workbench } from './harness/workbench.mjs';

const limit = { timeout: 15 * 60_000 }; // a dozen builds

onMachine('debugging on this machine', 'debug', async (m, step) => {
	const dir = m.path('greeter'), port = await freePort();
	writeService(dir, { port, files: { 'main.go': debugged(port), 'main_test.go': aTest } });
	await debugLoop(m, step, { dir, readme: (name) => ({ readme: name }) });
}, limit);

onMachine('a service that died with a core file', 'core', async (m, step) => {
	// Where a core file goes is the machine's to say; that there is one, this process's and its children's.
	const pattern = fs.readFileSync('/proc/sys/kernel/core_pattern', 'utf8').trim();
	if (/^[|/]/.test(pattern)) throw new Error(`core files of this machine go elsewhere: ${pattern}`);
	execFileSync('prlimit', ['--pid', String(process.pid), '--core=unlimited:']);
	const dir = m.path('greeter'), port = await freePort();
	const boom = 'package main\n\nimport "net/http"\n\nfunc init() {\n\thttp.HandleFunc("/boom", func(http.ResponseWriter, *http.Request) { go boom(7) })\n}\n\nfunc boom(fuse int) {\n\tpanic(fuse)\n}\n';
	writeService(dir, { port, yaml: 'version: 1\nenv: {GOTRACEBACK: crash}\n', files: { 'main.go': debugged(port), 'boom.go': boom } });
	const server = await CodeServer.start(m, { extra: { 'fairlead.openBrowser': 'never', 'fairlead.logs.showOnRun': false, 'debug.internalConsoleOptions': 'neverOpen' } });
	const wb = await Workbench.open(m, server, dir, { height: 1400 }); // all its goroutines are in sight
	const f = new Fairlead(wb), d = new Debugger(wb);

	await step('it dies, and a lens offers its core file', async () => {
		await wb.openFile('main.go');
		await f.state('Fairlead: run');
		await f.debugButton.click(); // with symbols
		await f.state(/greeter: live/);
		await d.toolbar.waitFor();
		await d.press('stop');
		await d.ended();
		fetch(`http://127.0.0.1:${port}/boom`).catch(() => {}); // on its own port: it breaks off
		await f.lens('Open core dump');
		await wb.shot('lens');
	});
	await step('a click opens it in the debugger, where it died', async () => {
		await wb.page.locator('.codelens-decoration a', { hasText: 'Open core dump' }).first().click();
		await wb.page.locator('.tab.active', { hasText: 'boom.go' }).waitFor(); // which takes the focus
		await wb.palette('View: Show Run and Debug'); // VS Code shows it at the first session only
		await d.stopped('main.boom', wb.lineOf('boom.go', 'panic('));
		await d.value('fuse', 7);
		await wb.shot('opened');
		await d.press('stop');
		await d.ended();
	});
	await step('a core file that is gone is said to be', async () => {
		for (const c of fs.globSync('core*', { cwd: dir })) fs.rmSync(path.join(dir, c));
		await wb.openFile('main.go');
		await wb.page.locator('.codelens-decoration a', { hasText: 'Open core dump' }).first().click();
		await wb.page.locator('.monaco-dialog-box', { hasText: 'or it is gone' }).waitFor();
		await wb.shot('gone');
		assert.equal(await wb.page.locator('.notification-toast').count(), 0, 'it was said twice');
	});
}, limit);

onCluster('debugging in a cluster', 'debug-cluster', async (m, step) => {
	const ns = await Namespace.create(m);
	const dir = m.path('greeter');
	const yaml = `version: 1\non: kubernetes\nkubernetes:\n  kubeconfig: ${cluster.kubeconfig}\n  namespace: ${ns.name}\n  registry: ${cluster.registry}\n`;
	writeService(dir, { port: 8080, yaml, files: { 'main.go': debugged(8080), 'main_test.go': aTest } });
	await debugLoop(m, step, { dir });
	await ns.wantNothing();
}, limit);
