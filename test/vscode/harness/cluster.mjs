// The test cluster as its administrator, through its API: kubectl is not on every machine.
import fs from 'node:fs';
import https from 'node:https';
import { cluster } from './machine.mjs';
import { eventually } from './wait.mjs';

const ours = 'labelSelector=fairlead.dev%2Fenvironment';

/** Namespace is one that goes with the test. */
export class Namespace {
	static async create(machine) {
		const text = fs.readFileSync(cluster.kubeconfig, 'utf8');
		const member = (name) => text.match(new RegExp(`${name}: *"?([^\\s"]+)`))?.[1];
		const data = (name) => Buffer.from(member(name), 'base64');
		const n = new Namespace();
		n.server = member('server');
		n.tls = { ca: data('certificate-authority-data'), cert: data('client-certificate-data'), key: data('client-key-data') };
		// The API server may have been restarted a moment ago, by a test of such faults.
		const made = await eventually('a namespace', () => n.call('POST', '/api/v1/namespaces', {
			metadata: { generateName: 'vscode-', labels: { 'pod-security.kubernetes.io/enforce': 'restricted' } },
		}));
		n.name = made.metadata.name;
		machine.cleanup(() => n.call('DELETE', `/api/v1/namespaces/${n.name}`, { gracePeriodSeconds: 0 }));
		return n;
	}

	call(method, path, body) {
		return new Promise((done, no) => {
			const req = https.request(this.server + path, { method, ...this.tls, headers: { 'Content-Type': 'application/json' } }, (res) => {
				let text = '';
				res.setEncoding('utf8').on('data', (d) => { text += d; }).on('end', () => {
					// An API server that is busy or just begins answers in plain text.
					let answer;
					try {
						answer = JSON.parse(text);
					} catch {
						no(new Error(`${method} ${path}: ${res.statusCode} ${text.slice(0, 200)}`));
						return;
					}
					if (res.statusCode < 300) done(answer);
					else no(new Error(`${method} ${path}: ${answer.message}`));
				}).on('error', no).on('aborted', () => no(new Error(`${method} ${path}: the answer broke off`)));
			}).on('error', no);
			req.end(body && JSON.stringify(body));
		});
	}

	/** list gives what environments of this namespace have of a kind: in it, or in namespaces of their own. */
	async list(api, kind, selector = ours) {
		const l = await this.call('GET', `/${api}/${kind}?${selector}`);
		return l.items.filter((o) => o.metadata.namespace === this.name || o.metadata.namespace.startsWith(`fairlead-${this.name}-`));
	}

	/** copies are the Deployments of dependencies that an environment has for itself. */
	copies() { return this.list('apis/apps/v1', 'deployments', 'labelSelector=fairlead.dev%2Fdependency-of'); }

	/** pods are the environment's, those that are going left out. */
	async pods() { return (await this.list('api/v1', 'pods')).filter((p) => !p.metadata.deletionTimestamp); }

	deletePod(pod) { return this.call('DELETE', `/api/v1/namespaces/${pod.metadata.namespace}/pods/${pod.metadata.name}`, { gracePeriodSeconds: 0 }); }

	/** wantNothing waits until no object of Fairlead's is left. */
	wantNothing() {
		return eventually('nothing of the environment is left', async () => {
			for (const [api, kind] of [['api/v1', 'pods'], ['api/v1', 'secrets'], ['apis/apps/v1', 'deployments']]) {
				const left = await this.list(api, kind);
				if (left.length) throw new Error(`${left.map((o) => o.metadata.name)} (${kind})`);
			}
			return true;
		});
	}
}
