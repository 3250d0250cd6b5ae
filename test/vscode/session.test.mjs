import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { Fairlead } from './harness/fairlead.mjs';
import { writeService } from './harness/service.mjs';
import { onMachine } from './harness/test.mjs';
import { eventually, freePort, within } from './harness/wait.mjs';
import { CodeServer, Workbench } from './harness/workbench.mjs';

onMachine('one environment for the editor, its next window and the terminal', 'session', async (m, step) => {
	const dir = m.path('greeter'), port = await freePort();
	writeService(dir, { port });
	const wb = await Workbench.open(m, await CodeServer.start(m, { extra: { 'fairlead.openBrowser': 'never' } }), dir);
	const f = new Fairlead(wb);
	let before, terminal;
	const same = () => assert.deepEqual(now(m), before);

	await step('it runs', async () => {
		await wb.openFile('main.go');
		await f.runButton.click();
		await f.state(/greeter: live/);
		before = await eventually('one of each', () => now(m));
		await (await f.logs()).shows('listening');
	});
	await step('a reload of the window loses nothing', async () => {
		await wb.reload();
		await f.state(/greeter: live/);
		same();
		const logs = await f.logs();
		await logs.shows('listening');
		await f.environments();
		await f.row(/Generation 1/).waitFor();
		await wb.shot('reloaded');
	});
	await step('the terminal joins', async () => {
		terminal = m.run(dir, 'run', '--json');
		await f.row(/Used by.*,/).waitFor();
		same();
	});
	await step('both see a save that neither made', async () => {
		const file = path.join(dir, 'main.go');
		fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace('"hello"', '"from elsewhere"'));
		await f.state(/greeter: live in .*s/);
		await f.row(/Generation 2/).waitFor();
		await eventually('the terminal has it too', () => said(terminal, 'ready', 2));
		before = await eventually('one of each', () => now(m));
	});
	await step('what the terminal only joined, it leaves', async () => {
		terminal.proc.kill('SIGINT');
		const [code] = await within('the terminal ends', terminal.ended);
		assert.equal(code, 0, terminal.text);
		await f.row(/Used by[^,]*$/).waitFor();
		await f.state(/greeter: live/);
		same();
	});
	await step('the end of the editor ends it', async () => {
		await f.command('Stop');
		await eventually('nothing runs', () => m.supervisors().length === 0 && m.services().length === 0);
	});
});

/** said tells whether `fairlead run --json` has printed such an event. */
const said = (p, type, generation) => p.text.split('\n').some((l) => {
	try {
		const e = JSON.parse(l);
		return e.type === type && (!generation || e.generation === generation);
	} catch {
		return false; // the last line may be half there
	}
});

/** now is which processes are there, undefined while it is not one of each. */
function now(m) {
	const kinds = { agent: m.agents(), supervisor: m.supervisors(), service: m.services() };
	if (Object.values(kinds).some((k) => k.length !== 1)) return undefined;
	return Object.fromEntries(Object.entries(kinds).map(([k, [p]]) => [k, p.pid]));
}
