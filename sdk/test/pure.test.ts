import { describe, expect, it } from 'vitest';
import { AT_ONCE_MS, retryDelay } from '../src/backoff';
import { closedForGood, reconnectTiming } from '../src/codes';
import { type Cause, isConnected, next, SyncPhase } from '../src/state';

const PHASES = Object.values(SyncPhase);
const { DISCONNECTED, CONNECTING, CONNECTED_IDLE, ACTIVE, PASSIVE } = SyncPhase;

describe('the state machine', () => {
  /** Each cause with the next phase of every phase, in the order of SyncPhase. */
  const table: [Cause, SyncPhase[]][] = [
    ['connect', [CONNECTING, CONNECTING, CONNECTED_IDLE, ACTIVE, PASSIVE]],
    [{ returned: 'connected' }, [DISCONNECTED, CONNECTED_IDLE, CONNECTED_IDLE, ACTIVE, PASSIVE]],
    [{ returned: 'active' }, [DISCONNECTED, ACTIVE, CONNECTED_IDLE, ACTIVE, PASSIVE]],
    [{ returned: 'passive' }, [DISCONNECTED, PASSIVE, CONNECTED_IDLE, ACTIVE, PASSIVE]],
    ['granted', [DISCONNECTED, CONNECTING, ACTIVE, ACTIVE, ACTIVE]],
    ['followed', [DISCONNECTED, CONNECTING, PASSIVE, PASSIVE, PASSIVE]],
    ['freed', [DISCONNECTED, CONNECTING, CONNECTED_IDLE, ACTIVE, CONNECTED_IDLE]],
    ['released', [DISCONNECTED, CONNECTING, CONNECTED_IDLE, PASSIVE, PASSIVE]],
    ['lost', [DISCONNECTED, CONNECTING, CONNECTING, CONNECTING, CONNECTING]],
    ['ended', [DISCONNECTED, DISCONNECTED, DISCONNECTED, DISCONNECTED, DISCONNECTED]],
  ];
  for (const [cause, expected] of table) {
    it(`applies ${JSON.stringify(cause)} to every phase`, () => {
      expect(PHASES.map((phase) => next(phase, cause))).toEqual(expected);
    });
  }

  it('counts the three phases of a session as connected', () => {
    expect(PHASES.filter(isConnected)).toEqual([CONNECTED_IDLE, ACTIVE, PASSIVE]);
  });
});

describe('the wait before a reconnect', () => {
  const highest = (attempt: number, when: 'at-once' | 'soon' | 'later'): number =>
    retryDelay(attempt, when, 1000, 30_000, () => 1);

  it('doubles its bound with every attempt, up to the limit', () => {
    expect([0, 1, 2, 3, 4, 5, 6, 99].map((attempt) => highest(attempt, 'soon'))).toEqual([
      1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000,
    ]);
  });

  it('may be zero unless the relay is overloaded', () => {
    expect(retryDelay(3, 'soon', 1000, 30_000, () => 0)).toBe(0);
    expect(retryDelay(3, 'later', 1000, 30_000, () => 0)).toBe(1000);
  });

  it('is short after a restart for the first attempt only', () => {
    expect(highest(0, 'at-once')).toBe(AT_ONCE_MS);
    expect(highest(1, 'at-once')).toBe(2000);
  });

  it('never exceeds the limit', () => {
    for (const when of ['at-once', 'soon', 'later'] as const) {
      for (let attempt = 0; attempt < 40; attempt += 1)
        expect(retryDelay(attempt, when, 1000, 700, () => 1)).toBeLessThanOrEqual(700);
    }
  });

  it('spreads a thousand clients that lose a node together', () => {
    for (const [attempt, when, span] of [
      [0, 'at-once', AT_ONCE_MS],
      [0, 'soon', 1000],
      [4, 'soon', 16_000],
    ] as const) {
      const slots = new Array<number>(20).fill(0);
      for (let client = 0; client < 1000; client += 1) {
        const slot = Math.floor((retryDelay(attempt, when, 1000, 30_000) / span) * slots.length);
        slots[slot]! += 1;
      }
      // 50 are expected in each slot; chance practically never puts 100 into one.
      expect(Math.max(...slots)).toBeLessThan(100);
      expect(Math.min(...slots)).toBeGreaterThan(10);
    }
  });
});

describe('the end of a connection', () => {
  it('decides the reconnect timing', () => {
    const codes = [1000, 1001, 1005, 1006, 1008, 1009, 1011, 1012, 1013, 4000];
    expect(codes.map(reconnectTiming)).toEqual([
      'soon',
      'soon',
      'soon',
      'soon',
      'never',
      'soon',
      'later',
      'at-once',
      'later',
      'soon',
    ]);
  });

  it('is a typed error when it is permanent', () => {
    const types = ['Session not found', 'Session expired', 'Session deleted', 'Session is full', 'Origin not allowed'].map(
      (reason) => closedForGood({ code: 1008, reason }).type,
    );
    expect(types).toEqual(['session_not_found', 'session_ended', 'session_ended', 'session_full', 'closed_by_relay']);
    expect(closedForGood({ code: 1006, reason: '' }).type).toBe('connection_lost');
  });
});
