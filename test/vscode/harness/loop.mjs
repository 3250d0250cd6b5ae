// The loop of a day, which is the same wherever the environment is.
import assert from 'node:assert/strict';
import { Fairlead } from './fairlead.mjs';
import { eventually } from './wait.mjs';
import { CodeServer, Workbench } from './workbench.mjs';

/** loop goes from the first click to the stop; lose() takes the environment away, and lost is what the status bar must say. */
export async function loop(m, step, { dir, settings, lose, lost, readme = () => ({}) }) {
	const server = await CodeServer.start(m, { extra: { 'fairlead.openBrowser': 'always', ...settings } });
	const wb = await Workbench.open(m, server, dir);
	const f = new Fairlead(wb);
	let site, logs;

	/** answers reloads the service's page until it says so, with the workbench in front again at the end. */
	const answers = async (want) => {
		await site.bringToFront();
		try {
			await eventually(`the page says ${want}`, async () => {
				await site.reload();
				return (await site.locator('h1').innerText({ timeout: 2000 })) === want;
			});
		} finally {
			await wb.page.bringToFront();
		}
	};
	const greet = (text) => wb.replaceLine(wb.lineOf('main.go', 'const greeting'), `const greeting = ${text}`);

	await step('the Run button makes the environment, and the browser opens on the service', async () => {
		await wb.openFile('main.go');
		await f.state(/Fairlead/);
		site = await wb.popup(() => f.runButton.click());
		await wb.page.bringToFront();
		await f.state(/greeter: live/);
		await answers('hello');
	});
	await step('the log view follows', async () => {
		logs = await f.logs();
		await logs.shows('listening');
		await logs.shows('answered');
		await wb.shot('live');
	});
	await step('a save in the editor is live in the browser and marked in the log', async () => {
		await wb.focusEditor();
		await greet('"changed"');
		await f.state(/greeter: live in .*s/);
		await answers('changed');
		await logs.shows(/generation 2/i);
		await f.lens(/live/);
		await wb.shot('edited', readme('vscode-live'));
	});
	await step('code that does not compile gets a squiggle and leaves what runs', async () => {
		await greet('1 + "x"');
		await wb.squiggle().first().waitFor();
		await f.state(/failed: main.go:12/);
		await f.lens(/failed/);
		await answers('changed');
		await wb.shot('broken', readme('vscode-broken'));
	});
	await step('the save that mends it takes the squiggle away', async () => {
		await greet('"mended"');
		await wb.squiggle().first().waitFor({ state: 'detached' });
		await f.state(/greeter: live in .*s/);
		await answers('mended');
	});
	await step('a panic is on the line that it comes from', async () => {
		// The process goes down with it: there is no answer.
		await site.evaluate(() => fetch('panic').catch(() => {}));
		await wb.goTo(wb.lineOf('main.go', 'm["x"]++'));
		await wb.squiggle().first().waitFor();
		await f.state(/down: main.go:34: panic: assignment/);
		await logs.shows('goroutine');
		await wb.shot('panic');
		await greet('"after the panic"');
		await f.state(/greeter: live/);
		await answers('after the panic');
		await wb.squiggle().first().waitFor({ state: 'detached' });
	});
	await step('a lost environment is told with its reason, and comes back', async () => {
		// It can be back within a second: the state is looked out for from before. The log keeps it.
		const seen = lost && f.state(lost).then(() => wb.shot('lost', readme('vscode-lost')));
		await Promise.all([seen, lose()]);
		await logs.shows('Connection lost');
		await f.state(/greeter: live/);
		await answers('after the panic');
		await greet('"back"');
		await f.state(/greeter: live in .*s/);
		await f.lens(/live/); // one that the editor has not asked for before it loses the focus stays as it was
		await answers('back');
	});
	await step('the tree shows the environment and stops it', async () => {
		await f.environments();
		await f.row(/Generation \d+/).waitFor();
		await wb.shot('tree', readme('vscode-environments'));
		await f.act('greeter', 'Stop');
		await f.row('greeter').waitFor({ state: 'detached' });
		await eventually('the service is gone', () => m.services().length === 0 && m.supervisors().length === 0);
	});
	assert.equal(await wb.squiggle().count(), 0);
}
