import assert from 'node:assert/strict';
import { Fairlead } from './harness/fairlead.mjs';
import { writeService } from './harness/service.mjs';
import { onMachine } from './harness/test.mjs';
import { eventually, freePort } from './harness/wait.mjs';
import { CodeServer, Workbench } from './harness/workbench.mjs';

const many = 100_000;

onMachine('the log view at 100,000 lines', 'logs', async (m, step) => {
	const dir = m.path('greeter'), port = await freePort();
	writeService(dir, { port });
	const wb = await Workbench.open(m, await CodeServer.start(m, { extra: { 'fairlead.openBrowser': 'never' } }), dir);
	const f = new Fairlead(wb);
	let logs;

	await step('it is open', async () => {
		await wb.openFile('main.go');
		await f.runButton.click();
		await f.state(/greeter: live/);
		logs = await f.logs();
		await logs.shows('listening');
	});
	await step('it follows', async () => {
		const start = Date.now();
		await logs.watch();
		await fetch(`http://127.0.0.1:${port}/flood?lines=${many}`);
		const written = Date.now() - start;
		await logs.shows('flood is over');
		console.log(`${many} lines: written in ${written} ms, shown ${Date.now() - start} ms after the beginning; longest task of the page ${await logs.longest()} ms`);
		await wb.shot('followed');
	});
	await step('a filter finds the few', async () => {
		const start = Date.now();
		await logs.filter('slow line');
		await logs.shows('99999');
		await eventually('the filter leaves the rest out', async () => !/"line"|flood is over/.test(await logs.text()));
		console.log(`filtered in ${Date.now() - start} ms`);
		await wb.shot('filtered');
	});
	await step('a link opens the line', async () => {
		await logs.link('main.go:43').click();
		await wb.at(43, 13);
	});
	await step('without the filter all is there again', async () => {
		await logs.filter('');
		await logs.shows('flood is over');
	});
	assert.equal(m.services().length, 1);
});
