// Sync phase changes
client.on('syncPhaseChanged', (event: SyncPhaseChangeEvent) => {
console.log(`Phase: ${event.oldPhase} → ${event.newPhase}`);
});
// Tutorial state updates
client.on('tutorialStateUpdated', (state: TutorialSyncState) => {
// Handle state updates
});
// Control events
client.on('controlRequested', (event) => {
// Peer wants control
client.acceptControlTransfer(); // or decline
});
client.on('controlOffered', (event) => {
// Peer offers control
client.acceptControlTransfer();
});
// Connection events
client.on('connected', () => console.log('Connected'));
client.on('disconnected', () => console.log('Disconnected'));
client.on('clientConnected', (clientId) => console.log('Peer connected'));
client.on('error', (error) => console.error('Error:', error));
