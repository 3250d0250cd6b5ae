import { loop } from './harness/loop.mjs';
import { writeService } from './harness/service.mjs';
import { onMachine } from './harness/test.mjs';
import { eventually, freePort } from './harness/wait.mjs';

onMachine('the loop on this machine', 'local', async (m, step) => {
	const dir = m.path('greeter');
	writeService(dir, { port: await freePort() });
	await loop(m, step, {
		dir,
		readme: (name) => (name === 'vscode-lost' ? {} : { readme: name }),
		// No state is asked for: a supervisor of this machine is back sooner than a status bar is drawn.
		lose: async () => {
			const [sup] = await eventually('one supervisor', () => m.supervisors().length === 1 && m.supervisors());
			process.kill(sup.pid, 'SIGKILL');
		},
	});
});
