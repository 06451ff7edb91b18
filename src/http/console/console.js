// Keeps the page current: the server says when something changed, and the page fetches itself anew. Without this script every page
// works as well. Nothing is swapped while somebody is typing or has opened something.
'use strict';
(() => {
  const main = document.getElementById('main');
  const status = document.getElementById('live');
  if (!main || !window.EventSource) return;
  let due = false;
  let busy = false;

  const disturbed = () => {
    const active = document.activeElement;
    if (active && main.contains(active) && /^(INPUT|SELECT|TEXTAREA)$/.test(active.tagName)) return true;
    for (const field of main.querySelectorAll('input, select, textarea')) {
      if (field.type === 'hidden') continue;
      if (field.tagName === 'SELECT') {
        const first = [...field.options].find((option) => option.defaultSelected) ?? field.options[0];
        if (first && !first.selected) return true;
      } else if (field.type === 'checkbox' || field.type === 'radio') {
        if (field.checked !== field.defaultChecked) return true;
      } else if (field.value !== field.defaultValue) {
        return true;
      }
    }
    return main.querySelector('details[open], dialog[open]') !== null;
  };

  const refresh = async () => {
    if (busy) return;
    if (document.hidden || disturbed()) { due = true; return; }
    busy = true;
    due = false;
    try {
      const answer = await fetch(location.href, { headers: { accept: 'text/html', 'x-livepatch-refresh': '1' }, credentials: 'same-origin' });
      if (answer.redirected && answer.url.includes('/console/login')) { location.reload(); return; }
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html').getElementById('main');
      if (!fresh || disturbed()) return;
      const focus = document.activeElement && document.activeElement.id;
      const before = main.textContent;
      fresh.querySelectorAll('.said').forEach((said) => said.remove());
      main.replaceChildren(...fresh.childNodes);
      if (focus && focus !== 'main') document.getElementById(focus)?.focus({ preventScroll: true });
      if (main.textContent !== before) {
        const alarm = main.querySelector('[data-alarm]');
        status.textContent = alarm ? ' · ' + alarm.dataset.alarm : ' · updated';
      }
    } catch {
      status.textContent = ' · not connected';
    } finally {
      busy = false;
    }
  };

  const source = new EventSource('/console/live');
  source.addEventListener('changed', refresh);
  source.addEventListener('tick', refresh);
  source.addEventListener('error', () => { status.textContent = ' · not connected'; });
  source.addEventListener('open', () => { status.textContent = ' · live'; });
  document.addEventListener('visibilitychange', () => { if (due) refresh(); });
  main.addEventListener('focusout', () => setTimeout(() => { if (due) refresh(); }, 0));
})();
