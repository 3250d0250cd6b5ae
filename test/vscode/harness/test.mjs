// A test on a machine of its own that tells what happened when it failed.
import { test } from 'node:test';
import fs from 'node:fs';
import path from 'node:path';
import { Machine, out, cluster } from './machine.mjs';

const limit = 5 * 60_000;

/** onMachine runs a test with a fresh machine; step(what, f) in it is a subtest that ends the test when it fails. */
export function onMachine(name, short, f, o = {}) {
	test(name, { timeout: limit, ...o }, async (t) => {
		const m = new Machine(short);
		const started = Date.now();
		const step = async (what, g) => {
			let failed;
			await t.test(what, async () => {
				try {
					await g();
				} catch (e) {
					failed = e;
					throw e;
				}
			});
			if (failed) throw new Error(`stopped at: ${what}`);
		};
		try {
			await f(m, step, t);
		} catch (e) {
			await explain(m);
			throw e;
		} finally {
			await m.close();
			console.log(`${short}: ${((Date.now() - started) / 1000).toFixed(1)} s`);
		}
	});
}

/** onCluster is onMachine for tests that need the test cluster. */
export function onCluster(name, short, f, o = {}) {
	if (!cluster && process.env.CI === 'true') throw new Error('FAIRLEAD_TEST_KUBECONFIG and FAIRLEAD_TEST_REGISTRY do not name a cluster');
	onMachine(name, short, f, { ...o, skip: cluster ? false : 'there is no test cluster' });
}

async function explain(m) {
	fs.mkdirSync(out, { recursive: true });
	const pages = m.workbench?.ctx.pages() ?? [];
	for (const [i, page] of pages.entries()) {
		const file = path.join(out, `FAILED-${m.name}-${i}.png`);
		await page.screenshot({ path: file, timeout: 10_000 }).then(() => console.log(`picture of the failure: ${file}`), (e) => console.log(`no picture: ${e.message}`));
	}
	for (const [name, text] of m.logs()) console.log(`---- ${name}\n${text.slice(-3000)}`);
	for (const p of m.processes().filter((p) => !/chrom|node$/.test(p.exe))) console.log(`process ${p.pid} ${p.argv.join(' ').slice(0, 200)}`);
}
