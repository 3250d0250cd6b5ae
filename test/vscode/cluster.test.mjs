import { Namespace } from './harness/cluster.mjs';
import { loop } from './harness/loop.mjs';
import { cluster } from './harness/machine.mjs';
import { writeService } from './harness/service.mjs';
import { onCluster } from './harness/test.mjs';
import { eventually } from './harness/wait.mjs';

onCluster('the loop in a cluster', 'cluster', async (m, step) => {
	const ns = await Namespace.create(m);
	const dir = m.path('greeter');
	const yaml = `version: 1\non: kubernetes\nkubernetes:\n  kubeconfig: ${cluster.kubeconfig}\n  namespace: ${ns.name}\n  registry: ${cluster.registry}\n`;
	writeService(dir, { port: 8080, yaml });
	await loop(m, step, {
		dir,
		readme: (name) => (name === 'vscode-lost' ? { readme: name } : {}),
		lost: /disconnected: .*/,
		lose: async () => {
			const [pod] = await eventually('one pod', async () => {
				const all = await ns.pods();
				return all.length === 1 && all;
			});
			await ns.deletePod(pod);
		},
	});
	await ns.wantNothing();
});
