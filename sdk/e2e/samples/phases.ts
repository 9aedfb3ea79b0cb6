// Check current phase
const phase = client.getCurrentSyncPhase();
const isActive = client.isActive();
const isPassive = client.isPassive();
const isConnectedIdle = client.isConnectedIdle();
// Choose sync direction (only in CONNECTED_IDLE)
await client.pullStateFromPeer(); // Become ACTIVE
await client.pushStateToPeer(); // Become PASSIVE
// Control transfer (between ACTIVE ↔ PASSIVE)
client.offerControlToPeer(); // Offer control to peer
client.acceptControlTransfer(); // Accept control from peer
client.releaseControl(); // Release control (ACTIVE → PASSIVE)
