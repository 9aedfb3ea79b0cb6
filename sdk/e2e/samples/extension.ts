import { RelayClient } from '@gitorial/sync';
const client = new RelayClient({
baseUrl: 'http://localhost:8080',
wsUrl: 'ws://localhost:8080',
sessionEndpoint: '/api/sessions'
});
// Create session and connect
const session = await client.createSessionAndConnect({
tutorial: 'react-basics'
});
// Choose sync direction (become ACTIVE to receive state)
await client.pullStateFromPeer();
console.log(`Share session: ${session.id}`);
// Listen for tutorial updates from website
client.on('tutorialStateUpdated', (state) => {
console.log(`Tutorial: ${state.tutorialTitle}`);
console.log(`Step: ${state.stepContent.index + 1}/${state.totalSteps}`);
// Update VS Code UI, navigate to files, etc.
});
// Send tutorial progress to website (only ACTIVE clients can send)
client.sendTutorialState({
tutorialId: 'react-basics',
tutorialTitle: 'React Fundamentals',
totalSteps: 10,
isShowingSolution: false,
stepContent: {
id: 'step-5',
title: 'useState Hook',
commitHash: 'abc123',
type: 'action',
index: 4
}
});
