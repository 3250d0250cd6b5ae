// Waiting on conditions: nothing in these tests waits for a time.
import net from 'node:net';

// patience is how long anything is waited for. The machine may be busy; what is measured elsewhere is not measured here.
export const patience = Number(process.env.FAIRLEAD_TEST_PATIENCE) || 60_000;

const tick = (ms) => new Promise((done) => setTimeout(done, ms));

/** eventually asks until f returns something true, and returns that. What f throws counts as a no, and is the reason. */
export async function eventually(what, f, ms = patience) {
	const end = Date.now() + ms;
	for (let reason; ; await tick(50)) {
		try {
			const v = await f();
			if (v) return v;
			reason = undefined;
		} catch (e) {
			reason = e;
		}
		if (Date.now() > end) throw new Error(`${what}: not within ${ms} ms${reason ? `: ${reason.message}` : ''}`);
	}
}

/** within bounds a promise. */
export async function within(what, promise, ms = patience) {
	let timer;
	const late = new Promise((_, no) => { timer = setTimeout(() => no(new Error(`${what}: not within ${ms} ms`)), ms); });
	try {
		return await Promise.race([promise, late]);
	} finally {
		clearTimeout(timer);
	}
}

// What the kernel gives to outgoing connections begins at 32768 (Linux) or 49152 (IANA), and NodePorts at 30000. A port
// from there that was free a moment ago may be taken by a client before the service listens.
const [low, high] = [12000, 30000];

/** freePort is one that nobody listens on and no outgoing connection is given. */
export function freePort() {
	return new Promise((done, no) => {
		const s = net.createServer().on('error', (err) => (err.code === 'EADDRINUSE' ? freePort().then(done, no) : no(err)));
		const port = low + Math.floor(Math.random() * (high - low));
		s.listen(port, () => s.close(() => done(port)));
	});
}
