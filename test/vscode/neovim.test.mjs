import path from 'node:path';
import { fairlead, here } from './harness/machine.mjs';
import { writeService } from './harness/service.mjs';
import { onMachine } from './harness/test.mjs';
import { freePort } from './harness/wait.mjs';
import { CodeServer, Workbench } from './harness/workbench.mjs';
import { Fairlead } from './harness/fairlead.mjs';

// Neovim in a real terminal, which is VS Code's: one environment for both, and a picture. What its client is told is
// tested in test/editor.
onMachine('Neovim in a terminal', 'neovim', async (m, step) => {
	const dir = m.path('greeter');
	writeService(dir, { port: await freePort() });
	m.env.FAIRLEAD = fairlead;
	const wb = await Workbench.open(m, await CodeServer.start(m, { extra: { 'terminal.integrated.fontSize': 15, 'workbench.panel.opensMaximized': 'always' } }), dir, { width: 1300, height: 700 });
	const f = new Fairlead(wb);
	const screen = wb.page.locator('.xterm-rows').first();
	const shows = (text) => screen.filter({ hasText: text }).waitFor();
	const type = (text) => wb.page.keyboard.type(text);

	await step('it shows the service', async () => {
		await f.status.waitFor();
		await wb.palette('Terminal: Create New Terminal');
		await shows(/[$#]/);
		await type(`exec nvim -u ${path.join(here, 'neovim.lua')} -i NONE -n main.go\n`);
		await shows(/Run in environment/);
	});
	await step('a lens runs it', async () => {
		await type('/^func main\n:lua vim.lsp.codelens.run()\n');
		await shows(/Type number/); // of several: the first is Run
		await type('1\n');
		await f.state(/greeter: live/);
		await shows(/live/);
	});
	await step('what does not compile is marked where it is', async () => {
		await type(':%s/"hello"/hello/\n:w\n');
		await shows(/■ undefined: hello/);
		await shows(/failed: main.go:12/);
		await wb.shot('screen', { clip: await wb.page.locator('.xterm-screen').first().boundingBox(), readme: 'neovim' });
	});
});
