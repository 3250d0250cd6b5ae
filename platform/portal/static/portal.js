// What is nicer with a script. Nothing here is needed: without it the same forms are sent by hand.
'use strict';

// A code that came in the address is sent at once, and taken out of the history.
const signIn = document.getElementById('sign-in');
if (signIn && location.hash.length > 1) {
	const code = location.hash.slice(1);
	history.replaceState(null, '', location.pathname + location.search);
	signIn.elements.code.value = code;
	signIn.submit();
}

// What is wrong is read first.
document.getElementById('faults')?.focus();

const request = document.getElementById('request');
if (request) {
	const all = document.getElementById('all');
	const methods = [...request.querySelectorAll('input[name=method]:not(:disabled)')];
	// "All" stands for each of them.
	const cover = () => { for (const m of methods) m.disabled = all.checked; };
	all.addEventListener('change', cover);
	cover();

	// Many endpoints are filtered by what is typed. What is ticked stays in sight.
	if (methods.length > 12) {
		const box = document.createElement('div');
		box.innerHTML = '<label for="filter">Filter</label><input id="filter" type="search" autocomplete="off" spellcheck="false"><p class="hidden" role="status"></p>';
		document.querySelector('#field-methods legend').after(box);
		const filter = box.querySelector('input'), status = box.querySelector('p');
		filter.addEventListener('input', () => {
			const words = filter.value.toLowerCase().split(/\s+/);
			let shown = 0;
			for (const m of methods) {
				const row = m.closest('li'), text = row.textContent.toLowerCase();
				row.hidden = !m.checked && !words.every((w) => text.includes(w));
				if (!row.hidden) shown++;
			}
			status.textContent = `${shown} of ${methods.length} methods`;
		});
		filter.addEventListener('keydown', (e) => { if (e.key === 'Enter') e.preventDefault(); });
	}

	// A second press is no second request for the portal either; this only says so sooner.
	let sent = false;
	request.addEventListener('submit', (e) => {
		if (sent) { e.preventDefault(); return; }
		sent = true;
		document.getElementById('send').setAttribute('aria-disabled', 'true');
	});
	addEventListener('pageshow', () => { sent = false; document.getElementById('send').removeAttribute('aria-disabled'); });
}
