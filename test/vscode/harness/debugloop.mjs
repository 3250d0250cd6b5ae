// A debug session of a day, which is the same wherever the environment is.
import assert from 'node:assert/strict';
import { Debugger } from './debugger.mjs';
import { Fairlead } from './fairlead.mjs';
import { eventually, within } from './wait.mjs';
import { CodeServer, Workbench } from './workbench.mjs';

const saves = 10;

/** debugLoop goes from the first breakpoint through ten saves to the end of the session */
export async function debugLoop(m, step, { dir, settings, readme = () => ({}) }) {
	const server = await CodeServer.start(m, { extra: { 'fairlead.openBrowser': 'never', 'fairlead.logs.showOnRun': false, 'debug.internalConsoleOptions': 'neverOpen', ...settings } });
	const wb = await Workbench.open(m, server, dir);
	const f = new Fairlead(wb), d = new Debugger(wb);
	const line = () => wb.lineOf('main.go', 'fmt.Fprintf');
	const adapters = () => m.processes().filter((p) => p.argv[1] === 'dap' && p.exe.endsWith('fairlead')).map((p) => p.pid);
	let answer, session, site;

	/** now is what the pod itself says that it runs, and where it answers here. */
	const now = async () => {
		const p = m.run(dir, 'status', '--json');
		await within('fairlead status', p.ended);
		const { url, status } = JSON.parse(p.text.split('\n')[0]);
		if (!url || !status?.pid) throw new Error(p.text);
		return { url, process: `${status.generation}/${status.pid}` };
	};
	const ask = async (what) => (await fetch(`${site}/${what}`)).text();

	/** hit asks the service for something, and waits until it stands where that is answered. */
	const hit = async (n) => {
		await wb.page.mouse.move(700, 600); // where it shows no tooltip
		answer = ask(`ask-${n}`);
		answer.catch(() => {}); // said by goOn
		await d.stopped('main.answer', line());
		await d.value('n', n);
	};
	const goOn = async (want) => {
		await d.press('continue');
		assert.equal(await within('the answer', answer), want);
	};
	/** edit makes the service answer n, with a line more above the breakpoint. */
	const edit = async (n, o) => {
		await wb.focusEditor();
		await wb.replaceLine(wb.lineOf('main.go', 'n := '), `\t// save ${n - 1}\n\tn := ${n}`, o);
	};
	/** renewed waits until a save's process is there: a request before that would be the old one's. */
	const renewed = async (old) => {
		await eventually('the new process', async () => (await now()).process !== old.process);
		await f.state(/greeter: live in .*s/);
	};
	/** same sees that it is the session that was begun: one adapter, the same, and a toolbar that never went away. */
	const same = async () => {
		assert.deepEqual(adapters(), session);
		assert.equal(await d.gone(), 0, 'the debug toolbar went away');
	};

	await step('a breakpoint is set once, and the Debug button begins', async () => {
		await wb.openFile('main.go');
		await f.state('Fairlead: run');
		await d.toggle(line());
		await f.debugButton.click();
		await d.watch();
		await f.state(/greeter: live/);
		session = await eventually('one adapter', () => adapters().length === 1 && adapters());
		site = (await eventually('the address', now)).url.replace(/\/$/, '');
	});
	await step('it is hit: call stack and local value are right', async () => {
		await hit(1);
		await f.state(/stopped in the debugger/);
		await wb.shot('stopped');
		await goOn('/ask-1 says 1');
		await f.state(/greeter: live/);
	});
	for (let n = 2; n <= saves + 1; n++) {
		await step(`save ${n - 1}: it is hit in the new code, on the line that moved`, async () => {
			const before = line(), old = await now();
			await edit(n);
			assert.equal(line(), before + 1);
			await renewed(old);
			await hit(n);
			await wb.shot(`save-${n - 1}`, n === saves + 1 ? readme('vscode-debug') : {});
			await goOn(`/ask-${n} says ${n}`);
			await same();
		});
	}
	await step('a save while it stands there waits, says so, and can be swapped in', async () => {
		await hit(saves + 1);
		const old = await now();
		await edit(saves + 2);
		await f.state(/built, waits: stopped in the debugger/);
		const asked = wb.notification('stands in the debugger');
		await asked.waitFor();
		assert.deepEqual(await now(), old, 'what stands at the breakpoint was taken away');
		await f.lens(/built, waits/);
		await wb.shot('waiting', readme('vscode-debug-waiting'));
		await asked.locator('.monaco-button', { hasText: 'Swap now' }).click();
		await renewed(old);
		await within('the end of the old answer', answer.catch(() => 'broken off'));
		await hit(saves + 2);
		await goOn(`/ask-${saves + 2} says ${saves + 2}`);
		await same();
	});
	let last = saves + 2;
	await step('a save that waits is swapped in when the service goes on', async () => {
		await hit(last);
		const old = await now();
		await edit(last + 1);
		await f.choose('When I Continue', /built, waits/);
		await wb.notification('stands in the debugger').waitFor({ state: 'detached' });
		assert.deepEqual(await now(), old);
		await goOn(`/ask-${last} says ${last}`);
		await renewed(old);
		last++;
		await hit(last);
		await goOn(`/ask-${last} says ${last}`);
		await same();
	});
	await step('and stays out where it was told never, until Restart', async () => {
		await hit(last);
		const old = await now();
		await edit(last + 1);
		await f.choose('Never While Stopped', /built, waits/);
		await goOn(`/ask-${last} says ${last}`);
		await f.state(/built, waits until you restart/);
		await wb.shot('never');
		assert.deepEqual(await now(), old, 'it was swapped in');
		await d.press('restart');
		await renewed(old);
		last++;
		await hit(last);
		await goOn(`/ask-${last} says ${last}`);
		await same();
	});
	await step('Restart is a fresh process of the same code, with the breakpoint', async () => {
		const old = await now();
		await d.press('restart');
		await renewed(old);
		await hit(last);
		await goOn(`/ask-${last} says ${last}`);
		await same();
	});
	await step('a second click shows the session that there is', async () => {
		await wb.palette('View: Show Explorer');
		await d.callStack.waitFor({ state: 'hidden' });
		await wb.focusEditor();
		await f.command('Debug in Environment');
		await d.callStack.waitFor();
		await same();
	});
	await step('Stop ends debugging, and the service goes on', async () => {
		const before = await now();
		await d.press('stop');
		await d.ended();
		await eventually('the adapter is gone', () => adapters().length === 0);
		await f.state(/greeter: live/);
		assert.equal(await within('an answer without a stop', ask('after')), `/after says ${last}`);
		assert.deepEqual(await now(), before);
	});
	await step('F5, without a configuration, attaches to what runs', async () => {
		const before = await now();
		await wb.focusEditor();
		await wb.page.keyboard.press('F5');
		await d.toolbar.waitFor();
		await eventually('one adapter', () => adapters().length === 1);
		await f.lens(/debugged/);
		await hit(last);
		await goOn(`/ask-${last} says ${last}`);
		assert.deepEqual(await now(), before);
		await d.press('stop');
		await d.ended();
		await f.state(/greeter: live/);
	});
	await step('the lens above a test debugs it beside the service', async () => {
		const before = await now();
		await wb.openFile('main_test.go');
		await d.toggle(wb.lineOf('main_test.go', 't.Log'));
		await wb.page.locator('.codelens-decoration a', { hasText: 'Debug test in environment' }).first().click();
		await d.stopped('greeter.TestTwice', wb.lineOf('main_test.go', 't.Log'));
		await d.value('twice', 42);
		await wb.shot('test');
		await d.press('continue');
		await d.ended(); // with the test
		assert.deepEqual(await now(), before);
	});
	await step('the environment stops as always', async () => {
		await f.command('Stop');
		await f.state('Fairlead: run');
	});
}
