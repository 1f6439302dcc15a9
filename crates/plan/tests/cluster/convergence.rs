//! Whatever happens in whatever order: once it is quiet, the right number of tasks runs.

use proptest::prelude::*;
use shoal_types::object::NodeState;
use shoal_types::spec::{Availability, FailureAction, ServiceSpec, UpdateOrder, UpdateState};
use shoal_types::{NodeId, ServiceId, TaskState, View, after};

use crate::support::*;

const IMAGES: [&str; 6] = ["v1", "v2", "v3-reject", "v4-exit3", "v5-slow", "v6-exit0"];

#[derive(Debug, Clone)]
enum Act {
    Wait(u16),
    Scale(u8),
    Image(u8),
    Label,
    Force,
    Constrain(bool),
    Rollback,
    Fail(u8),
    Complete(u8),
    Forget(u8),
    Node(u8, NodeAct),
    AddNode,
    ChangeLeader,
}

#[derive(Debug, Clone, Copy)]
enum NodeAct {
    Down,
    Up,
    Drain,
    Pause,
    Activate,
    Label,
    Unlabel,
    Remove,
}

fn act() -> impl Strategy<Value = Act> {
    use NodeAct::{Activate, Down, Drain, Label, Pause, Remove, Unlabel, Up};
    let node = prop_oneof![
        Just(Down),
        Just(Up),
        Just(Drain),
        Just(Pause),
        Just(Activate),
        Just(Label),
        Just(Unlabel),
        Just(Remove)
    ];
    prop_oneof![
        8 => (0u16..100).prop_map(Act::Wait),
        2 => (0u8..7).prop_map(Act::Scale),
        3 => (0u8..6).prop_map(Act::Image),
        1 => Just(Act::Label),
        1 => Just(Act::Force),
        1 => any::<bool>().prop_map(Act::Constrain),
        1 => Just(Act::Rollback),
        2 => any::<u8>().prop_map(Act::Fail),
        1 => any::<u8>().prop_map(Act::Complete),
        1 => any::<u8>().prop_map(Act::Forget),
        3 => (any::<u8>(), node).prop_map(|(n, a)| Act::Node(n, a)),
        1 => Just(Act::AddNode),
        1 => Just(Act::ChangeLeader),
    ]
}

fn spec() -> impl Strategy<Value = ServiceSpec> {
    let action = prop_oneof![Just(FailureAction::Pause), Just(FailureAction::Continue), Just(FailureAction::Rollback)];
    let order = prop_oneof![Just(UpdateOrder::StopFirst), Just(UpdateOrder::StartFirst)];
    (any::<bool>(), 0u64..4, 0i64..3, action, order, 0u8..3).prop_map(
        |(is_global, parallelism, delay, action, order, ratio)| {
            let mut spec = if is_global { global("v1") } else { replicated("v1", 3) };
            spec.update_config = config(|c| {
                (c.parallelism, c.delay, c.failure_action, c.order) = (parallelism, delay * SECOND, action, order);
                c.max_failure_ratio = f32::from(ratio) / 2.0;
            });
            spec.rollback_config = spec.update_config.clone();
            spec
        },
    )
}

impl World {
    fn play(&mut self, web: ServiceId, act: &Act) {
        let nodes: Vec<NodeId> = self.store.nodes().map(|n| n.id).collect();
        let tasks = self.tasks(web);
        let pick = |n: u8| tasks.get(usize::from(n) % tasks.len().max(1)).filter(|t| t.node_id.is_some()).cloned();
        match act {
            Act::Wait(tenths) => self.run_until(after(self.now, i64::from(*tenths) * 100 * MS)),
            Act::Scale(n) if !self.service(web).spec.mode.is_global() => {
                self.update(web, |s| set_replicas(s, i64::from(*n)));
            }
            Act::Image(n) => self.update(web, |s| set_image(s, IMAGES[usize::from(*n)])),
            Act::Scale(_) | Act::Label => self.update(web, |s| _ = s.labels.insert("n".into(), "x".into())),
            Act::Force => self.update(web, |s| s.task_template.force_update += 1),
            Act::Constrain(yes) => {
                let constraints: &[&str] = if *yes { &["node.labels.a!=x"] } else { &[] };
                self.update(web, |s| set_constraints(s, constraints));
            }
            Act::Rollback if self.service(web).previous_spec.is_some() => self.rollback(web),
            Act::Fail(n) => pick(*n).into_iter().for_each(|t| self.end_task(t.id, TaskState::Failed)),
            Act::Complete(n) => pick(*n).into_iter().for_each(|t| self.end_task(t.id, TaskState::Complete)),
            Act::Forget(n) => pick(*n).into_iter().for_each(|t| {
                let id = shoal_types::ObjectKind::Task(t.id);
                self.commit(vec![shoal_types::Change::Remove(id)]);
            }),
            Act::Node(n, act) if !nodes.is_empty() => self.play_node(nodes[usize::from(*n) % nodes.len()], *act),
            Act::AddNode if nodes.len() < 5 => _ = self.add_node(),
            Act::ChangeLeader => self.change_leader(),
            Act::Rollback | Act::Node(..) | Act::AddNode => {}
        }
    }

    fn play_node(&mut self, node: NodeId, act: NodeAct) {
        match act {
            NodeAct::Down => self.set_state(node, NodeState::Down),
            NodeAct::Up => self.set_state(node, NodeState::Ready),
            NodeAct::Drain => self.set_availability(node, Availability::Drain),
            NodeAct::Pause => self.set_availability(node, Availability::Pause),
            NodeAct::Activate => self.set_availability(node, Availability::Active),
            NodeAct::Label => self.change_node(node, |n| _ = n.spec.labels.insert("a".into(), "x".into())),
            NodeAct::Unlabel => self.change_node(node, |n| n.spec.labels.clear()),
            NodeAct::Remove => self.remove_node(node),
        }
    }

    /// Makes everything good again, then expects what the service says to run, and nothing else.
    fn settle_and_check(&mut self, web: ServiceId) {
        let nodes: Vec<NodeId> = self.store.nodes().map(|n| n.id).collect();
        for node in nodes {
            self.set_state(node, NodeState::Ready);
            self.set_availability(node, Availability::Active);
        }
        self.add_node();
        self.update(web, |s| {
            set_image(s, "final");
            set_constraints(s, &[]);
        });
        self.run(600);
        let service = self.service(web);
        let wanted = match service.spec.mode.is_global() {
            true => self.store.nodes().count(),
            false => usize::try_from(service.spec.mode.replicas()).expect("few"),
        };
        assert_eq!(self.images(web), vec!["final"; wanted], "{:?}", service.update_status);
        let live = self.tasks(web).into_iter().filter(|t| t.desired_state <= TaskState::Running).count();
        assert_eq!(live, wanted);
        assert!(matches!(self.phase(web), None | Some(UpdateState::Completed)), "{:?}", service.update_status);
        let steps = self.steps.len();
        self.run(3600);
        assert_eq!(self.steps.len(), steps, "quiet means quiet");
        self.change_leader();
        assert_eq!(self.steps.len(), steps, "another leader sees nothing to do either");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_right_number_of_tasks_runs_after_any_history(spec in spec(), acts in prop::collection::vec(act(), 0..40)) {
        let mut world = World::new(2);
        let web = world.create(spec);
        for act in &acts {
            world.play(web, act);
        }
        world.settle_and_check(web);
        world.remove(web);
        world.run(10);
        prop_assert_eq!(world.tasks(web).len(), 0);
    }
}
