/** The page: connects buttons and links to a session. */
import { Session } from './session';
import { render } from './view';

const session = new Session(() => {
  keepInAddress();
  render(session);
});

const relay = document.querySelector<HTMLInputElement>('#relay')!;
relay.value = new URLSearchParams(location.search).get('relay') ?? 'http://127.0.0.1:8080';

document.querySelector('#start')!.addEventListener('submit', (event) => {
  event.preventDefault();
  void session.create(relay.value);
});

const actions: Record<string, () => unknown> = {
  ask: () => session.askForControl(),
  take: () => session.takeControl(),
  offer: () => session.offerControl(),
  release: () => session.releaseControl(),
  leave: () => session.leave(),
  accept: () => session.answer(true),
  decline: () => session.answer(false),
  previous: () => session.go({ index: session.place.index - 1, showsSolution: false }),
  next: () => session.go({ index: session.place.index + 1, showsSolution: false }),
  solution: () => session.go({ ...session.place, showsSolution: !session.place.showsSolution }),
};
for (const [id, act] of Object.entries(actions)) document.getElementById(id)!.addEventListener('click', act);

/** Keeps the session in the fragment, so that a reload joins it again. A browser does not send it to a server. */
function keepInAddress(): void {
  if (session.isJoining) return;
  const url = new URL(location.href);
  url.hash = session.id ? `session=${session.id}` : '';
  if (session.relay) url.searchParams.set('relay', session.relay);
  if (url.href !== location.href) history.replaceState(null, '', url);
}

// A link to another session, opened in this window, changes only the fragment.
addEventListener('hashchange', () => location.reload());

const invited = new URLSearchParams(location.hash.slice(1)).get('session');
if (invited) void session.join(relay.value, invited);
else render(session);
