import { RelayClient } from '@gitorial/sync';
const client = new RelayClient({
baseUrl: 'http://localhost:8080',
wsUrl: 'ws://localhost:8080',
sessionEndpoint: '/api/sessions'
});
// Connect to existing session
const sessionId = new URLSearchParams(location.search).get('session');
await client.connectToSession(sessionId);
// Choose sync direction (become PASSIVE to send state)
await client.pushStateToPeer();
// Listen for VS Code extension updates
client.on('tutorialStateUpdated', (state) => {
// Update website UI
updateTutorialStep(state.stepContent.index);
});
// Send website progress to VS Code (PASSIVE clients send initial state)
client.on('syncPhaseChanged', (event) => {
if (event.newPhase === 'passive') {
// Now in PASSIVE phase, can send state updates
client.sendTutorialState(getCurrentTutorialState());
}
});
