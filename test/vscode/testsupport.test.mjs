import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fairlead, tools } from './harness/machine.mjs';
import { debugged, writeService } from './harness/service.mjs';
import { onMachine } from './harness/test.mjs';
import { eventually, freePort, patience, within } from './harness/wait.mjs';

const { DebugClient } = createRequire(path.join(tools, 'package.json'))('@vscode/debugadapter-testsupport');

// VS Code's own test client for debug adapters, on the adapter alone.
onMachine("VS Code's test client for debug adapters", 'testsupport', async (m, step) => {
	const dir = m.path('greeter'), port = await freePort();
	writeService(dir, { port, files: { 'main.go': debugged(port) } });
	const file = path.join(dir, 'main.go');
	const lineOf = (text) => fs.readFileSync(file, 'utf8').split('\n').findIndex((l) => l.includes(text)) + 1;
	const ask = async (what) => (await fetch(`http://127.0.0.1:${port}/${what}`)).text();
	const clients = [];
	const start = async () => {
		const c = new DebugClient(fairlead, 'dap', 'fairlead', { cwd: dir, env: m.env });
		c.defaultTimeout = patience; // its own 5 s are for adapters that build nothing
		c.seen = [];
		for (const e of ['terminated', 'exited', 'initialized', 'stopped', 'continued', 'breakpoint']) c.on(e, (x) => c.seen.push(x));
		await c.start();
		clients.push(c);
		return c;
	};
	// A client whose test failed would leave its adapter, and Node.js with it.
	m.cleanup(() => { for (const c of clients) c._adapterProcess?.kill('SIGKILL'); });
	let c, asked;
	/** stop asks the service for something, and waits until it stands at a line. */
	const stop = async (line) => {
		const stopped = c.assertStoppedLocation('breakpoint', { path: file, line });
		asked = eventually('it listens', () => ask('x')); // its process is there a moment before
		asked.catch(() => {}); // said by goOn
		const { body } = await stopped;
		const [frame] = body.stackFrames;
		assert.equal(frame.name, 'main.answer');
		const scopes = await c.scopesRequest({ frameId: frame.id });
		const locals = scopes.body.scopes.find((s) => s.name === 'Locals');
		const { variables } = (await c.variablesRequest({ variablesReference: locals.variablesReference })).body;
		return variables.find((v) => v.name === 'n').value;
	};
	const goOn = async (want) => {
		await c.continueRequest({ threadId: 1 });
		assert.equal(await within('the answer', asked), want);
	};

	await step('a configuration with a mistake is refused with its name', async () => {
		c = await start();
		await c.initializeRequest();
		await assert.rejects(c.launchRequest({ program: dir, stopOnEntri: true }), /"stopOnEntri".*stopOnEntry/s);
		await c.disconnectRequest();
		c.stopAdapter();
	});
	await step('it launches, and the breakpoint is hit', async () => {
		c = await start();
		const line = lineOf('fmt.Fprintf');
		await Promise.all([
			c.waitForEvent('initialized').then(async () => {
				const set = await c.setBreakpointsRequest({ source: { path: file }, breakpoints: [{ line }] });
				assert.deepEqual([set.body.breakpoints.length, set.body.breakpoints[0].line], [1, line]);
				await c.configurationDoneRequest();
			}),
			c.launch({ program: dir }),
		]);
		assert.equal(await stop(line), '1');
		await goOn('/x says 1');
	});
	await step('an unknown request and a wrong one are refused, and the session goes on', async () => {
		await assert.rejects(c.customRequest('makeCoffee'), /Internal Error/); // Delve's word for it
		await assert.rejects(c.stackTraceRequest({ threadId: 999_999 }));
		await c.threadsRequest();
	});
	for (const n of [2, 3]) {
		await step(`after redeploy ${n - 1} it is hit in the new code`, async () => {
			const before = lineOf('fmt.Fprintf');
			const [old] = m.services();
			fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace(/\tn := \d/, `\t// a line more\n\tn := ${n}`));
			await eventually('the new process', () => m.services().length === 1 && m.services()[0].pid !== old.pid);
			assert.equal(await stop(before + 1), String(n));
			await goOn(`/x says ${n}`);
		});
	}
	await step('nothing of the redeploys reached the client', () => {
		const names = c.seen.map((e) => e.event);
		for (const e of ['terminated', 'exited']) assert.ok(!names.includes(e), names.join(' '));
		assert.equal(names.filter((e) => e === 'initialized').length, 1, names.join(' '));
	});
	await step('it disconnects, and the adapter ends', async () => {
		const ended = new Promise((done) => { c._adapterProcess.once('exit', done); });
		await c.disconnectRequest({ terminateDebuggee: true });
		await within('the end of the adapter', ended);
		await eventually('what it launched is gone', () => m.services().length === 0);
		c.stopAdapter();
	});
});
